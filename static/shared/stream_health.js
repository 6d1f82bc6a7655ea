// Detects a broken stream, and polls while there is none. The application's pages and embed.js share this file, so it contains only
// the class.
//
// The server sends at least one heartbeat per interval, which CONNECTED announces. If one is missing after a grace period, the
// connection is dead although nothing reported it: the stream is reopened at once. While no stream is live, the server is polled every
// ten seconds. If polling gets no answer either, the network or the server is down: attempts continue with backoff. If it does, only
// streams fail, because a proxy buffers or refuses them: then the page is updated by polling, and says so, until a stream is live.
"use strict";

class StreamHealth {
  static POLL_INTERVAL_MS = 10000; // on average, while no stream is live; shown to the user
  static #POLL_TIMEOUT_MS = 8000; // a slower answer counts as none
  static #DEFAULT_HEARTBEAT_MS = 15000; // until CONNECTED announces it
  static #GRACE_MS = 5000;
  static #HELD_BACK_AFTER_MS = 5000; // an attempt without an event for so long is held back by a proxy; a refusal comes sooner
  static #MAX_HELD_ATTEMPT_MS = 60000; // after which a held back attempt is replaced: the route may have changed
  static #FAILURES_BEFORE_POLL = 3; // failures in a row after which the server is polled without waiting
  static #MAX_SILENT_STREAMS = 2; // streams in a row that opened and then fell silent: a proxy lets only the beginning through
  #poll;
  #catchUp;
  #disconnect;
  #showState;
  #heartbeatMs = StreamHealth.#DEFAULT_HEARTBEAT_MS;
  #attemptStartedAt = null; // performance.now(), null between attempts
  #isConnected = false; // whether the present stream has sent CONNECTED
  #failures = 0; // failed attempts since a stream was live or polling failed
  #silentStreams = 0;
  #isHeld = false;
  #silenceTimer = 0;
  #pollTimer = 0;
  #pollRound = 0; // an answer to an earlier poll is ignored

  state = "start"; // start, live, wait, or poll

  // `poll(signal)` resolves to the server's answer, or null; `catchUp(answer)` updates the page from it; `disconnect()` ends the present
  // attempt, after which the page calls `recordEnd`; `showState(state, isHeld)` shows the state to the user.
  constructor({ poll, catchUp, disconnect, showState }) {
    this.#poll = poll;
    this.#catchUp = catchUp;
    this.#disconnect = disconnect;
    this.#showState = showState;
  }

  // Milliseconds without an event after which a stream is dead.
  get silenceMs() {
    return 1.2 * this.#heartbeatMs + StreamHealth.#GRACE_MS; // heartbeats have a jitter of ± 20 %
  }

  static describe(state, { isHeld, ms, asOf }) {
    if (state === "live") return "Live";
    if (state === "start") return "Connecting…";
    const asOfText = (asOf ?? new Date()).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    if (navigator.onLine === false) return `Offline, as of ${asOfText}`;
    if (state === "poll") return `Live updates are ${isHeld ? "held back" : "unavailable"}; checking every ${StreamHealth.POLL_INTERVAL_MS / 1000} s`;
    return ms > 0 ? `Reconnecting in ${Math.ceil(ms / 1000)} s` : "Reconnecting…";
  }

  // An attempt to open a stream starts.
  startAttempt() {
    clearTimeout(this.#silenceTimer);
    this.#attemptStartedAt = performance.now();
    this.#isConnected = false;
    if (!this.#pollTimer) this.#schedulePoll();
  }

  // The stream sent an event; `heartbeatSeconds` comes with CONNECTED.
  recordEvent(name, heartbeatSeconds) {
    const isOpening = !this.#isConnected;
    if (name === "CONNECTED") {
      this.#isConnected = true;
      this.#heartbeatMs = 1000 * heartbeatSeconds || StreamHealth.#DEFAULT_HEARTBEAT_MS;
    }
    if (!this.#isConnected) return; // replayed events, or a refusal
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#handleSilence(isOpening), this.silenceMs);
    if (!isOpening) this.#silentStreams = 0;
    if (this.#silentStreams < StreamHealth.#MAX_SILENT_STREAMS) this.#markLive();
  }

  // The stream may be broken: the browser went offline, or the user asks for another attempt.
  markDoubtful() {
    this.#failures = 0;
    this.#setState("wait");
    if (!this.#pollTimer) this.#schedulePoll();
  }

  // The attempt failed, or the stream ended.
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

  // This page no longer holds the stream.
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
