// Checks the path from the server to this browser: opens the same stream as the inbox and times its first event. A proxy that
// buffers responses sends nothing until its buffer is full, which a quiet stream never fills.
"use strict";

{
  const SLOW_MS = 2000, TIMEOUT_MS = 10000;
  const result = document.getElementById("stream-result");
  const startedAt = performance.now();
  const source = new EventSource(result.dataset.url);
  const timer = setTimeout(() => showResult("No event arrived in 10 s: a proxy may be buffering streams. See docs/operations.md, Proxies."), TIMEOUT_MS);

  result.textContent = "Testing a stream…";
  source.addEventListener("CONNECTED", () => {
    const elapsedMs = Math.round(performance.now() - startedAt);
    const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
    const protocolNotice = protocol === "h2" || protocol === "h3" ? "" : " This page was loaded over HTTP/1.1. With HTTP/2, tabs share one connection.";
    showResult(`Streams arrive without delay: the first event took ${elapsedMs} ms.${protocolNotice}`, elapsedMs > SLOW_MS && `The first event took ${elapsedMs} ms: a proxy may be slow, or may be buffering streams.`);
  });
  for (const eventName of ["BUSY", "CONNECTION_LIMIT_REACHED"]) {
    source.addEventListener(eventName, () => showResult("The server refused the stream: too many are open."));
  }

  function showResult(sentence, warning) {
    clearTimeout(timer);
    source.close();
    result.textContent = warning || sentence;
    result.dataset.done = "yes";
  }
}
