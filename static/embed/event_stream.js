// Server-sent events over fetch, their cursors, and backoff between attempts.

const INITIAL_DELAY_MS = 500, MAX_DELAY_MS = 30000; // exponential backoff between attempts, which never end

const addJitter = (ms) => ms * (0.7 + 0.6 * Math.random());
const sleep = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

const parseSeq = (cursor) => Number(/-(\d+)$/.exec(cursor ?? "")?.[1] ?? 0); // a cursor is "epoch-seq"
const parseEpoch = (cursor) => /^(\w+)-/.exec(cursor ?? "")?.[1];

// Read a stream of server-sent events to its end (HTML standard, 9.2.6): calls `handleEvent(name, data, id)` and `setRetryMs(ms)`.
async function readEvents(body, handleEvent, setRetryMs) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let remainder = "", event = { name: "message", data: [], id: null };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (remainder + value).split(/\r\n|\n|\r(?!$)/);
    remainder = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
      if (line === "") {
        if (event.data.length) handleEvent(event.name, event.data.join("\n"), event.id);
        event = { name: "message", data: [], id: null };
      } else if (field === "data") event.data.push(text ?? "");
      else if (field === "event") event.name = text;
      else if (field === "id") event.id = text;
      else if (field === "retry" && /^\d+$/.test(text)) setRetryMs(Number(text));
    }
  }
}
