// Whether the stream is heard, and what is done while it is not. Used by the application's pages and by embed.js, so it is a class
// and nothing more.
//
// The server writes at least once per heartbeat, and says with CONNECTED how long that is. A missed one plus some grace is a dead
// line that nobody reported: the stream is opened anew at once. While no stream is heard the server is asked every ten seconds. If
// that is not answered either, the line is silent: the tries go on, with growing pauses. If it is, only streams do not come through,
// because something holds them back or refuses them: then the page lives from asking, and says so, until a stream is heard again.
"use strict";

class StreamHealth {
  static ASK_MS = 10000; // around which the server is asked; the words below say so
  static #ANSWER_MS = 8000; // an answer that takes longer is none
  static #HEARTBEAT_MS = 15000; // until the server says it
  static #GRACE_MS = 5000;
  static #HELD_MS = 5000; // a stream that says nothing for so long is held back; a refusal comes sooner
  static #TRY_MS = 60000; // how long one that is held back is kept before another is tried: the way may be another by now
  static #FAILURES = 3; // in a row, before the server is asked without waiting
  static #MUTED = 2; // streams in a row that opened and then said nothing more: a proxy lets only the beginning through
  #ask;
  #catchUp;
  #cut;
  #show;
  #heartbeatMs = StreamHealth.#HEARTBEAT_MS;
  #tryAt = null; // when the present try began, null between tries
  #isConnected = false; // the present stream
  #failures = 0; // tries that came to nothing since the server last did not answer
  #muted = 0;
  #isHeld = false;
  #silence = 0;
  #asking = 0;
  #round = 0; // an answer to a question of an earlier round is too late

  state = "start"; // live, wait, or poll

  // `ask(signal)` resolves to what the server answers, null for nothing; `catchUp(answer)` makes the page current by it; `cut()` ends the
  // present try, after which the page calls `fail`; `show(state, isHeld)` tells the person.
  constructor({ ask, catchUp, cut, show }) {
    this.#ask = ask;
    this.#catchUp = catchUp;
    this.#cut = cut;
    this.#show = show;
  }

  // Milliseconds without a word after which a stream is dead.
  get silenceMs() {
    return 1.2 * this.#heartbeatMs + StreamHealth.#GRACE_MS; // heartbeats come ± 20 %
  }

  static words(state, { isHeld, ms, asOf }) {
    if (state === "live") return "Live";
    if (state === "start") return "Connecting…";
    const at = (asOf ?? new Date()).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    if (navigator.onLine === false) return `Offline, as of ${at}`;
    if (state === "poll") return `Live updates are ${isHeld ? "held back" : "unavailable"}; checking every ${StreamHealth.ASK_MS / 1000} s`;
    return ms > 0 ? `Reconnecting in ${Math.ceil(ms / 1000)} s` : "Reconnecting…";
  }

  // A stream is asked for.
  begin() {
    clearTimeout(this.#silence);
    this.#tryAt = performance.now();
    this.#isConnected = false;
    if (!this.#asking) this.#askLater();
  }

  // The stream said something; `heartbeatSeconds` comes with CONNECTED.
  hear(name, heartbeatSeconds) {
    const isOpening = !this.#isConnected;
    if (name === "CONNECTED") {
      this.#isConnected = true;
      this.#heartbeatMs = 1000 * heartbeatSeconds || StreamHealth.#HEARTBEAT_MS;
    }
    if (!this.#isConnected) return; // what was missed, or a refusal
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#fallSilent(isOpening), this.silenceMs);
    if (!isOpening) this.#muted = 0;
    if (this.#muted < StreamHealth.#MUTED) this.#live();
  }

  // Nothing proves any more that the stream is heard: the network went, or a person asks for another try.
  doubt() {
    this.#failures = 0;
    this.#become("wait");
    if (!this.#asking) this.#askLater();
  }

  // The try, or the stream, came to its end.
  fail() {
    clearTimeout(this.#silence);
    if (!this.#isConnected) {
      this.#failures += 1;
      this.#isHeld = this.#pendingMs > StreamHealth.#HELD_MS;
    }
    this.#tryAt = null;
    this.#isConnected = false;
    if (this.state !== "poll") this.#become("wait");
    if (!this.#asking) this.#askLater();
    if (this.state === "wait" && this.#failures === StreamHealth.#FAILURES) this.#look();
  }

  // This page holds no stream any more.
  stop() {
    clearTimeout(this.#silence);
    this.#settle();
    this.#tryAt = null;
    this.#isConnected = false;
    this.state = "start";
  }

  get #pendingMs() {
    return this.#tryAt === null ? 0 : performance.now() - this.#tryAt;
  }

  #fallSilent(wasMuted) {
    if (wasMuted) this.#muted += 1;
    if (this.state !== "poll") this.#become("wait");
    this.#cut();
  }

  #live() {
    this.#settle();
    this.#failures = 0;
    if (this.state !== "live") this.#become("live");
  }

  #settle() {
    clearTimeout(this.#asking);
    this.#asking = 0;
    this.#round += 1;
  }

  #become(state) {
    this.state = state;
    this.#show(state, this.#isHeld);
  }

  #askLater() {
    clearTimeout(this.#asking);
    this.#asking = setTimeout(() => this.#look(), StreamHealth.ASK_MS * (0.8 + 0.3 * Math.random()));
  }

  async #look() {
    clearTimeout(this.#asking);
    const round = ++this.#round;
    const answer = navigator.onLine === false ? undefined : await this.#answer();
    if (round !== this.#round) return;
    this.#askLater();
    if (answer === undefined) return;
    if (answer === null) this.#findSilent();
    else this.#findAnswering(answer);
  }

  #answer() {
    const signal = AbortSignal.timeout(StreamHealth.#ANSWER_MS);
    return new Promise((done) => {
      signal.addEventListener("abort", () => done(null));
      this.#ask(signal).then(done, () => done(null));
    });
  }

  #findSilent() {
    this.#failures = 0;
    if (this.state !== "wait") this.#become("wait");
    if (this.#tryAt !== null) this.#cut();
  }

  #findAnswering(answer) {
    const isPending = this.#pendingMs > StreamHealth.#HELD_MS;
    this.#isHeld ||= isPending;
    if (isPending || this.#failures) this.#become("poll");
    this.#catchUp(answer);
    if (this.#pendingMs > StreamHealth.#TRY_MS) this.#cut();
  }
}
