// The server, asked with the person's token. It is sent as a header only, got when it is needed, and got anew before it is over.

class Server {
  #getToken;
  #token = null;
  #freshUntil = 0; // performance.now(): no clock of anybody's is compared with another's

  // `getToken`: async () => ({token, expiresIn}), in seconds.
  constructor(getToken) {
    this.#getToken = getToken;
  }

  // Resolves to the answer of a GET, or of a POST with a `body`. Throws Refused, or a TypeError when no answer came.
  async ask(path, { body, signal, again = true } = {}) {
    const headers = { Authorization: `Bearer ${await this.#freshToken()}` };
    if (body) headers["Content-Type"] = "application/json";
    const asked = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store", signal };
    const answer = await fetch(HOME + path, asked);
    if (answer.ok) return answer;
    if (answer.status === 401) this.forgetToken();
    if (answer.status === 401 && again) return this.ask(path, { body, signal, again: false });
    throw new Refused(answer.status, (await answer.json().catch(() => null))?.detail);
  }

  forgetToken() {
    this.#token = null;
  }

  async #freshToken() {
    if (this.#token && performance.now() < this.#freshUntil) return this.#token;
    const told = await this.#getToken();
    this.#token = told.token;
    this.#freshUntil = performance.now() + 1000 * ((told.expiresIn ?? 60) - 30); // before it is over, not after
    return this.#token;
  }
}

// What `token-url` names: an address of the page's own site.
async function askPage(url) {
  const answer = await fetch(url, { method: "POST", credentials: "same-origin", headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Refused(answer.status, "This page could not open your messages. Sign in to it again.");
  return answer.json();
}

class Refused extends Error {
  constructor(status, detail) {
    super(detail || `The server answered ${status}.`);
    this.status = status;
  }
}
