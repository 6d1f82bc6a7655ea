// Tries the way from the server to this browser: opens the same stream as the inbox and times its first event. A proxy that
// buffers sends nothing until its buffer is full, which a quiet stream never does.
"use strict";

{
  const PROMPT_MS = 2000, PATIENCE_MS = 10000;
  const result = document.getElementById("stream-result");
  const began = performance.now();
  const source = new EventSource(result.dataset.url);
  const waited = setTimeout(() => say("Nothing came through in 10 s: something in front holds streams back. See docs/operations.md, Proxies."), PATIENCE_MS);

  result.textContent = "Trying a stream…";
  source.addEventListener("CONNECTED", () => {
    const ms = Math.round(performance.now() - began);
    const how = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
    const words = how === "h2" || how === "h3" ? "" : " The page came over HTTP/1.1; with HTTP/2 tabs share one connection.";
    say(`A stream comes through at once: the first event after ${ms} ms.${words}`, ms > PROMPT_MS && `The first event took ${ms} ms: something in front is slow, or holds streams back for a while.`);
  });
  for (const refusal of ["BUSY", "CONNECTION_LIMIT_REACHED"]) {
    source.addEventListener(refusal, () => say("No stream to spare: the server refused another one."));
  }

  function say(words, instead) {
    clearTimeout(waited);
    source.close();
    result.textContent = instead || words;
    result.dataset.done = "yes";
  }
}
