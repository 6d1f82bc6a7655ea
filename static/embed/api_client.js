// Requests to the server with the user's token, which is sent only as a header, fetched when needed, and renewed before it expires.

class ApiClient {
  #getToken;
  #token = null;
  #tokenExpiresAt = 0; // performance.now(), so that no two machines' clocks are compared

  // `getToken`: async () => ({token, expiresIn}), in seconds.
  constructor(getToken) {
    this.#getToken = getToken;
  }

  // Resolves to the response of a GET, or of a POST if there is a `body`. Rejects with RequestRefused, or a TypeError if no response came.
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
    this.#tokenExpiresAt = performance.now() + 1000 * ((grant.expiresIn ?? 60) - 30); // 30 s early: renewed before it expires
    return this.#token;
  }
}

// `url` is the element's `token-url`: an address of the embedding site.
async function fetchTokenFromPage(url) {
  const response = await fetch(url, { method: "POST", credentials: "same-origin", headers: { Accept: "application/json" } });
  if (!response.ok) throw new RequestRefused(response.status, "Your messages could not be loaded. Sign in to this page again.");
  return response.json();
}

class RequestRefused extends Error {
  constructor(status, detail) {
    super(detail || `The server answered ${status}.`);
    this.status = status;
  }
}
