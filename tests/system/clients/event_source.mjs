// The npm `eventsource` client: node event_source.mjs URL COUNT
// Prints each event as a JSON line; ends after COUNT messages. A dropped
// connection is its business: it reconnects as a browser does.
import { EventSource } from "eventsource";

const [url, count] = process.argv.slice(2);
const source = new EventSource(url);
let left = Number(count);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

source.onopen = () => print({ open: true });
source.onerror = (e) => print({ error: e.code ?? null,
	closed: source.readyState === EventSource.CLOSED });
source.addEventListener("stentor.ready", (e) => print({ ready: e.data }));
source.onmessage = (e) => {
	print({ data: e.data });
	if (--left === 0)
		source.close();
};
