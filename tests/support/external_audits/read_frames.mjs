// Reads frames back with eventsource-parser. Standard input: one JSON line {bytes (base64), want: [{id, event, data}]} per case.
import { createParser } from "eventsource-parser";
import { createInterface } from "node:readline";

let cases = 0, wrong = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { bytes, want } = JSON.parse(line);
  const got = [];
  const parser = createParser({ onEvent: ({ id, event, data }) => got.push({ id: id ?? null, event, data }) });
  parser.feed(Buffer.from(bytes, "base64").toString("utf8"));
  cases += 1;
  if (JSON.stringify(got) !== JSON.stringify(want)) {
    wrong += 1;
    console.error("read", JSON.stringify(got), "instead of", JSON.stringify(want));
  }
}
console.log(`${cases} cases, ${wrong} wrong`);
process.exit(wrong ? 1 : 0);
