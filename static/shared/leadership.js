// Leader election between the pages of a browser: one holds the stream for all of them, since browsers allow six HTTP/1.1
// connections to a site and the seventh would hang.
//
// A Web Lock elects the leader, so that another page takes over within milliseconds when the leader is closed. Without Web Locks
// (plain http from another machine) the leader renews a lease in localStorage: two pages may lead for a moment, until one finds the
// other's id in the lease and resigns. Without either, every page leads itself. The application's pages and embed.js share this file,
// so it contains only the class.
"use strict";

class Leadership {
  static CHECK_INTERVAL_MS = 1000; // between checks of the lease; the shortest timer that background pages get
  static LEASE_DURATION_MS = 4000; // longer than a busy page may be late with renewing it
  #name;
  #lead;
  #resign;
  #id = Math.random().toString(36).slice(2);
  #candidacy = null; // AbortController while this page is a candidate or leads
  #wasHolder = false; // whether this page held the lease at the last check

  isLeading = false;

  // `lead` and `resign` are called when this page starts and stops leading. Nothing happens before `standForElection`.
  constructor(name, { lead, resign }) {
    this.#name = name;
    this.#lead = lead;
    this.#resign = resign;
  }

  // Become a candidate: this page leads as soon as no other does.
  standForElection() {
    if (this.#candidacy) return;
    this.#candidacy = new AbortController();
    if (navigator.locks) this.#requestLock(this.#candidacy.signal);
    else this.#watchLease(this.#candidacy.signal);
  }

  // Stop leading, or being a candidate; another page takes over at once.
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
    navigator.locks.request(this.#name, { signal }, holdLock).catch(() => {}); // aborted while it was queued
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
    const isExpired = !lease || lease.until < now || lease.until > now + 2 * Leadership.LEASE_DURATION_MS; // or the clock was set back
    if (isMine || isExpired) this.#writeLease({ by: this.#id, until: now + Leadership.LEASE_DURATION_MS });
    if (isMine && this.#wasHolder) this.#startLeading(); // no other page has overwritten it since the last check
    else if (!isMine) this.#stopLeading();
    this.#wasHolder = isMine || isExpired;
    if (isExpired && !isMine) setTimeout(() => { if (this.#candidacy) this.#checkLease(); }, Leadership.CHECK_INTERVAL_MS / 4);
  }

  // The lease; null if there is none, undefined if storage cannot be read.
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
    } catch { /* full or forbidden: reading fails as well, or another page writes the lease */ }
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
