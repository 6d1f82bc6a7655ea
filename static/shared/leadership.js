// Which page of a browser holds the stream for all of them: HTTP/1.1 allows six connections to a site, and the seventh would hang.
//
// A Web Lock says it, so that a leader that is closed is followed within milliseconds. Where there is none (plain http on another
// machine), a lease in localStorage that the leader renews: two pages may lead for a moment, and the one that finds another's name
// in it lets go. Where there is neither, every page leads itself. Used by the application's pages and by embed.js, so it is a
// class and nothing more.
"use strict";

class Leadership {
  static CHECK_INTERVAL_MS = 1000; // how often the lease is looked at; a page in the background is granted that much
  static LEASE_DURATION_MS = 4000; // how long it holds; longer than a busy page may be late
  #name;
  #lead;
  #resign;
  #id = Math.random().toString(36).slice(2);
  #candidacy = null; // aborted when this page no longer stands
  #wasHolder = false; // the lease, at the last look

  isLeading = false;

  // `lead` and `resign` are called when this page begins and ceases to lead. Nothing happens before `stand`.
  constructor(name, { lead, resign }) {
    this.#name = name;
    this.#lead = lead;
    this.#resign = resign;
  }

  // From now on this page leads as soon as no other does.
  standForElection() {
    if (this.#candidacy) return;
    this.#candidacy = new AbortController();
    if (navigator.locks) this.#requestLock(this.#candidacy.signal);
    else this.#watchLease(this.#candidacy.signal);
  }

  // Lead no more, and let another page do it at once.
  stepDown() {
    this.#candidacy?.abort();
    this.#candidacy = null;
    this.#wasHolder = false;
    this.#stopLeading();
  }

  #requestLock(signal) {
    const holdLock = () => new Promise((release) => {
      if (signal.aborted) return release();
      signal.addEventListener("abort", release, { once: true });
      this.#startLeading();
    });
    navigator.locks.request(this.#name, { signal }, holdLock).catch(() => {}); // aborted while it waited
  }

  #watchLease(signal) {
    const checkLease = () => this.#checkLease();
    const timer = setInterval(checkLease, Leadership.CHECK_INTERVAL_MS);
    window.addEventListener("storage", ({ key, newValue }) => { if (key === this.#name && !newValue) checkLease(); }, { signal });
    signal.addEventListener("abort", () => {
      clearInterval(timer);
      if (this.#readLease()?.by === this.#id) this.#writeLease(null);
    }, { once: true });
    checkLease();
  }

  #checkLease() {
    const lease = this.#readLease(), now = Date.now();
    if (lease === undefined) return this.#startLeading(); // storage is forbidden
    const isMine = lease?.by === this.#id;
    const isExpired = !lease || lease.until < now || lease.until > now + 2 * Leadership.LEASE_DURATION_MS; // or the clock was put back
    if (isMine || isExpired) this.#writeLease({ by: this.#id, until: now + Leadership.LEASE_DURATION_MS });
    if (isMine && this.#wasHolder) this.#startLeading(); // nobody wrote over it since the last look
    else if (!isMine) this.#stopLeading();
    this.#wasHolder = isMine || isExpired;
    if (isExpired && !isMine) setTimeout(() => { if (this.#candidacy) this.#checkLease(); }, Leadership.CHECK_INTERVAL_MS / 4);
  }

  // The lease, null for none, undefined when it cannot be read.
  #readLease() {
    try {
      return JSON.parse(localStorage.getItem(this.#name));
    } catch (error) {
      return error instanceof SyntaxError ? null : undefined;
    }
  }

  #writeLease(lease) {
    try {
      if (lease) localStorage.setItem(this.#name, JSON.stringify(lease));
      else localStorage.removeItem(this.#name);
    } catch { /* full or forbidden: then it cannot be read either, or another writes it */ }
  }

  #startLeading() {
    if (this.isLeading) return;
    this.isLeading = true;
    this.#lead();
  }

  #stopLeading() {
    if (!this.isLeading) return;
    this.isLeading = false;
    this.#resign();
  }
}
