// The server, asked with the person's token. It is sent as a header only, got when it is needed, and got anew before it is over.

class ApiClient {
  #getToken;
  #token = null;
  #tokenExpiresAt = 0; // performance.now(): no clock of anybody's is compared with another's

  // `getToken`: async () => ({token, expiresIn}), in seconds.
  constructor(getToken) {
    this.#getToken = getToken;
  }

  // Resolves to the answer of a GET, or of a POST with a `body`. Throws Refused, or a TypeError when no answer came.
  async request(path, { body, signal, mayRetry = true } = {}) {
    const headers = { Authorization: `Bearer ${await this.#getFreshToken()}` };
    if (body) headers["Content-Type"] = "application/json";
    const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store", signal };
    const response = await fetch(SERVER_ORIGIN + path, options);
    if (response.ok) return response;
    if (response.status === 401) this.forgetToken();
    if (response.status === 401 && mayRetry) return this.request(path, { body, signal, mayRetry: false });
    throw new RequestRefused(response.status, (await response.json().catch(() => null))?.detail);
  }

  forgetToken() {
    this.#token = null;
  }

  async #getFreshToken() {
    if (this.#token && performance.now() < this.#tokenExpiresAt) return this.#token;
    const grant = await this.#getToken();
    this.#token = grant.token;
    this.#tokenExpiresAt = performance.now() + 1000 * ((grant.expiresIn ?? 60) - 30); // before it is over, not after
    return this.#token;
  }
}

// What `token-url` names: an address of the page's own site.
async function fetchTokenFromPage(url) {
  const response = await fetch(url, { method: "POST", credentials: "same-origin", headers: { Accept: "application/json" } });
  if (!response.ok) throw new RequestRefused(response.status, "This page could not open your messages. Sign in to it again.");
  return response.json();
}

class RequestRefused extends Error {
  constructor(status, detail) {
    super(detail || `The server answered ${status}.`);
    this.status = status;
  }
}
