// Checks the path from the server to this browser: opens the same stream as the inbox and times its first event. A proxy that
// buffers responses sends nothing until its buffer is full, which a quiet stream never fills.
"use strict";

{
  const SLOW_MS = 2000, TIMEOUT_MS = 10000;
  const result = document.getElementById("stream-result");
  const startedAt = performance.now();
  const source = new EventSource(result.dataset.url);
  const timer = setTimeout(() => showResult("Nothing came through in 10 s: something in front holds streams back. See docs/operations.md, Proxies."), TIMEOUT_MS);

  result.textContent = "Trying a stream…";
  source.addEventListener("CONNECTED", () => {
    const elapsedMs = Math.round(performance.now() - startedAt);
    const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
    const protocolNotice = protocol === "h2" || protocol === "h3" ? "" : " The page came over HTTP/1.1; with HTTP/2 tabs share one connection.";
    showResult(`A stream comes through at once: the first event after ${elapsedMs} ms.${protocolNotice}`, elapsedMs > SLOW_MS && `The first event took ${elapsedMs} ms: something in front is slow, or holds streams back for a while.`);
  });
  for (const eventName of ["BUSY", "CONNECTION_LIMIT_REACHED"]) {
    source.addEventListener(eventName, () => showResult("No stream to spare: the server refused another one."));
  }

  function showResult(sentence, warning) {
    clearTimeout(timer);
    source.close();
    result.textContent = warning || sentence;
    result.dataset.done = "yes";
  }
}
