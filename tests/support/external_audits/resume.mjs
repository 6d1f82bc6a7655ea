// Keeps a stream open with the npm package eventsource, whatever cuts it off. Prints one JSON line for each event it is given.
import { EventSource } from "eventsource";

const [url, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const source = new EventSource(url, { fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }) });
for (const type of ["CONNECTED", "MESSAGE", "MESSAGE_REMOVED", "RESET"]) {
  source.addEventListener(type, (event) => console.log(JSON.stringify({ type, id: event.lastEventId, data: JSON.parse(event.data) })));
}
source.addEventListener("error", (event) => console.log(JSON.stringify({ type: "error", code: event.code ?? null })));
process.stdin.resume().on("end", () => process.exit(0));
