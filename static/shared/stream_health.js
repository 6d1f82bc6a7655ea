// Whether the stream is heard, and what is done while it is not. Used by the application's pages and by embed.js, so it is a class
// and nothing more.
//
// The server writes at least once per heartbeat, and says with CONNECTED how long that is. A missed one plus some grace is a dead
// line that nobody reported: the stream is opened anew at once. While no stream is heard the server is asked every ten seconds. If
// that is not answered either, the line is silent: the tries go on, with growing pauses. If it is, only streams do not come through,
// because something holds them back or refuses them: then the page lives from asking, and says so, until a stream is heard again.
"use strict";

class StreamHealth {
  static POLL_INTERVAL_MS = 10000; // around which the server is asked; the words below say so
  static #POLL_TIMEOUT_MS = 8000; // an answer that takes longer is none
  static #DEFAULT_HEARTBEAT_MS = 15000; // until the server says it
  static #GRACE_MS = 5000;
  static #HELD_BACK_AFTER_MS = 5000; // a stream that says nothing for so long is held back; a refusal comes sooner
  static #MAX_HELD_ATTEMPT_MS = 60000; // how long one that is held back is kept before another is tried: the way may be another by now
  static #FAILURES_BEFORE_POLL = 3; // in a row, before the server is asked without waiting
  static #MAX_SILENT_STREAMS = 2; // streams in a row that opened and then said nothing more: a proxy lets only the beginning through
  #poll;
  #catchUp;
  #disconnect;
  #showState;
  #heartbeatMs = StreamHealth.#DEFAULT_HEARTBEAT_MS;
  #attemptStartedAt = null; // when the present try began, null between tries
  #isConnected = false; // the present stream
  #failures = 0; // tries that came to nothing since the server last did not answer
  #silentStreams = 0;
  #isHeld = false;
  #silenceTimer = 0;
  #pollTimer = 0;
  #pollRound = 0; // an answer to a question of an earlier round is too late

  state = "start"; // live, wait, or poll

  // `ask(signal)` resolves to what the server answers, null for nothing; `catchUp(answer)` makes the page current by it; `cut()` ends the
  // present try, after which the page calls `fail`; `show(state, isHeld)` tells the person.
  constructor({ poll, catchUp, disconnect, showState }) {
    this.#poll = poll;
    this.#catchUp = catchUp;
    this.#disconnect = disconnect;
    this.#showState = showState;
  }

  // Milliseconds without a word after which a stream is dead.
  get silenceMs() {
    return 1.2 * this.#heartbeatMs + StreamHealth.#GRACE_MS; // heartbeats come ± 20 %
  }

  static describe(state, { isHeld, ms, asOf }) {
    if (state === "live") return "Live";
    if (state === "start") return "Connecting…";
    const asOfText = (asOf ?? new Date()).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    if (navigator.onLine === false) return `Offline, as of ${asOfText}`;
    if (state === "poll") return `Live updates are ${isHeld ? "held back" : "unavailable"}; checking every ${StreamHealth.POLL_INTERVAL_MS / 1000} s`;
    return ms > 0 ? `Reconnecting in ${Math.ceil(ms / 1000)} s` : "Reconnecting…";
  }

  // A stream is asked for.
  startAttempt() {
    clearTimeout(this.#silenceTimer);
    this.#attemptStartedAt = performance.now();
    this.#isConnected = false;
    if (!this.#pollTimer) this.#schedulePoll();
  }

  // The stream said something; `heartbeatSeconds` comes with CONNECTED.
  recordEvent(name, heartbeatSeconds) {
    const isOpening = !this.#isConnected;
    if (name === "CONNECTED") {
      this.#isConnected = true;
      this.#heartbeatMs = 1000 * heartbeatSeconds || StreamHealth.#DEFAULT_HEARTBEAT_MS;
    }
    if (!this.#isConnected) return; // what was missed, or a refusal
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#handleSilence(isOpening), this.silenceMs);
    if (!isOpening) this.#silentStreams = 0;
    if (this.#silentStreams < StreamHealth.#MAX_SILENT_STREAMS) this.#markLive();
  }

  // Nothing proves any more that the stream is heard: the network went, or a person asks for another try.
  markDoubtful() {
    this.#failures = 0;
    this.#setState("wait");
    if (!this.#pollTimer) this.#schedulePoll();
  }

  // The try, or the stream, came to its end.
  recordEnd() {
    clearTimeout(this.#silenceTimer);
    if (!this.#isConnected) {
      this.#failures += 1;
      this.#isHeld = this.#attemptMs > StreamHealth.#HELD_BACK_AFTER_MS;
    }
    this.#attemptStartedAt = null;
    this.#isConnected = false;
    if (this.state !== "poll") this.#setState("wait");
    if (!this.#pollTimer) this.#schedulePoll();
    if (this.state === "wait" && this.#failures === StreamHealth.#FAILURES_BEFORE_POLL) this.#pollNow();
  }

  // This page holds no stream any more.
  stop() {
    clearTimeout(this.#silenceTimer);
    this.#stopPolling();
    this.#attemptStartedAt = null;
    this.#isConnected = false;
    this.state = "start";
  }

  get #attemptMs() {
    return this.#attemptStartedAt === null ? 0 : performance.now() - this.#attemptStartedAt;
  }

  #handleSilence(wasOpening) {
    if (wasOpening) this.#silentStreams += 1;
    if (this.state !== "poll") this.#setState("wait");
    this.#disconnect();
  }

  #markLive() {
    this.#stopPolling();
    this.#failures = 0;
    if (this.state !== "live") this.#setState("live");
  }

  #stopPolling() {
    clearTimeout(this.#pollTimer);
    this.#pollTimer = 0;
    this.#pollRound += 1;
  }

  #setState(state) {
    this.state = state;
    this.#showState(state, this.#isHeld);
  }

  #schedulePoll() {
    clearTimeout(this.#pollTimer);
    this.#pollTimer = setTimeout(() => this.#pollNow(), StreamHealth.POLL_INTERVAL_MS * (0.8 + 0.3 * Math.random()));
  }

  async #pollNow() {
    clearTimeout(this.#pollTimer);
    const pollRound = ++this.#pollRound;
    const answer = navigator.onLine === false ? undefined : await this.#fetchAnswer();
    if (pollRound !== this.#pollRound) return;
    this.#schedulePoll();
    if (answer === undefined) return;
    if (answer === null) this.#handleNoAnswer();
    else this.#handleAnswer(answer);
  }

  #fetchAnswer() {
    const signal = AbortSignal.timeout(StreamHealth.#POLL_TIMEOUT_MS);
    return new Promise((resolve) => {
      signal.addEventListener("abort", () => resolve(null));
      this.#poll(signal).then(resolve, () => resolve(null));
    });
  }

  #handleNoAnswer() {
    this.#failures = 0;
    if (this.state !== "wait") this.#setState("wait");
    if (this.#attemptStartedAt !== null) this.#disconnect();
  }

  #handleAnswer(answer) {
    const isStalled = this.#attemptMs > StreamHealth.#HELD_BACK_AFTER_MS;
    this.#isHeld ||= isStalled;
    if (isStalled || this.#failures) this.#setState("poll");
    this.#catchUp(answer);
    if (this.#attemptMs > StreamHealth.#MAX_HELD_ATTEMPT_MS) this.#disconnect();
  }
}
