/* The demo page: one EventSource for everything that is shown.
 *
 * Messages change the model; drawing follows at the next animation frame, and
 * not at all while the view is paused. Everything kept is bounded. What arrives
 * is shown as text, never as markup: anybody may publish to a channel.
 */
"use strict";

const COMMENTARY = "cricket:demo:commentary";
const SCORE = "cricket:demo:score";
const CPU = "host:cpu";
const NET = "host:net";
const DEMO_CHANNELS = [COMMENTARY, SCORE, CPU, NET];

const CHANNEL_NAME = /^[A-Za-z0-9_.:~@\/-]{1,128}$/;
const COMMENTARY_MAX = 80;
const RAW_MAX = 50;
const RAW_TEXT_MAX = 4000;
const CHART_SPAN_MS = 120000;
const CHART_HOLE_MS = 2500; /* no line is drawn over a longer silence */
const REOPEN_FIRST_MS = 2000;
const REOPEN_MAX_MS = 30000;
const BANNER_MS = 15000;
const LATENCY_PLAUSIBLE_MS = 60000;

const $ = (id) => document.getElementById(id);

const model = {
	state: "connecting",
	banner: "",
	messages: 0,
	readyAt: 0, /* since when messages are live; older ones are history */
	latencyMs: null,
	score: null,
	play: 0, /* which playing of the match the commentary belongs to */
	balls: new Map(), /* order -> ball */
	cpu: [], /* {t, total, cores} */
	net: [], /* {t, rx, tx, loopback} */
	watched: "demo:hello",
	raw: [], /* {t, text}, newest first */
	rawCount: 0,
	paused: false,
};

/* --- the connection --------------------------------------------------------- */

let current = null; /* the source whose messages count */
let opening = null; /* the latest one opened: current when it stands */
let place = { query: "", id: "" }; /* where the stream of this query is */
let reopenMs = REOPEN_FIRST_MS;
let reopenTimer = 0;
let bannerTimer = 0;

/* Opens a stream for the demo's channels and the watched one. The old stream
 * stays until the new one stands, so that choosing a channel loses nothing. One
 * for the same channels goes on where the last one was; the browser does that
 * by itself only as long as it reconnects by itself. */
function openStream() {
	clearTimeout(reopenTimer);
	if (opening && opening !== current)
		opening.close();
	const channels = [...new Set([...DEMO_CHANNELS, model.watched])];
	const query = new URLSearchParams(channels.map((c) => ["channel", c]));
	query.set("format", "json");
	const text = query.toString();
	if (place.query === text && place.id)
		query.set("last_event_id", place.id);
	const source = new EventSource("/v1/subscribe?" + query);
	opening = source;
	current = current || source;

	source.addEventListener("stentor.ready", (event) => {
		onReady(source);
		place = { query: text, id: event.lastEventId };
	});
	source.addEventListener("stentor.closing", () => {
		if (source === current)
			setBanner("This node is closing. The browser reconnects by itself.");
	});
	source.addEventListener("stentor.gap", () => {
		if (source === current)
			setBanner("Some messages were missed while away.", BANNER_MS);
	});
	source.onmessage = (event) => {
		if (source !== current)
			return;
		place = { query: text, id: event.lastEventId };
		onMessage(event.data);
	};
	source.onerror = () => onError(source);
}

function onReady(source) {
	if (current && current !== source)
		current.close();
	current = source;
	reopenMs = REOPEN_FIRST_MS;
	model.state = "live";
	model.readyAt = Date.now();
	setBanner("");
}

/* EventSource reconnects by itself, except after an answer that is not a
 * stream: then it is closed for ever and a new one is due. */
function onError(source) {
	const closed = source.readyState === EventSource.CLOSED;
	if (source === current) {
		model.state = "reconnecting";
		if (closed) {
			current = null;
			reopenTimer = setTimeout(openStream, reopenMs * (0.5 + Math.random() / 2));
			reopenMs = Math.min(reopenMs * 2, REOPEN_MAX_MS);
		}
	} else if (closed) {
		setText("channel-error", "The node does not take this channel.");
	}
	draw();
}

/* Shows a line above everything; with `ms`, for that long. */
function setBanner(text, ms) {
	clearTimeout(bannerTimer);
	model.banner = text;
	if (ms)
		bannerTimer = setTimeout(() => setBanner(""), ms);
	draw();
}

/* --- messages --------------------------------------------------------------- */

function parse(text) {
	try {
		return JSON.parse(text);
	} catch {
		return null;
	}
}

function onMessage(text) {
	const envelope = parse(text);
	if (!envelope || typeof envelope.channel !== "string")
		return;
	model.messages++;
	if (envelope.channel === model.watched)
		onRaw(String(envelope.data));
	if (DEMO_CHANNELS.includes(envelope.channel)) {
		const value = parse(envelope.data);
		if (value && typeof value === "object")
			onDemo(envelope.channel, value);
	}
	draw();
}

function onDemo(channel, value) {
	const now = Date.now();
	const live = typeof value.at === "number" && value.at >= model.readyAt;
	if (live) {
		const latency = now - value.at;
		model.latencyMs = Math.abs(latency) < LATENCY_PLAUSIBLE_MS ? Math.max(0, latency) : null;
	}
	if (channel === SCORE && Array.isArray(value.innings) && value.innings.length) {
		model.score = value;
	} else if (channel === COMMENTARY) {
		onBall(value, live);
	} else if (channel === CPU && Array.isArray(value.cores)) {
		keep(model.cpu, { t: now, total: value.total, cores: value.cores }, now);
	} else if (channel === NET) {
		keep(model.net, { t: now, rx: value.rx, tx: value.tx, loopback: value.loopback }, now);
	}
}

function keep(samples, sample, now) {
	samples.push(sample);
	while (samples.length && samples[0].t < now - CHART_SPAN_MS - CHART_HOLE_MS)
		samples.shift();
}

/* A ball may come again, with a stream for other channels; it counts once. */
function onBall(ball, live) {
	if (ball.play < model.play)
		return;
	if (ball.play > model.play) {
		model.play = ball.play;
		model.balls.clear();
	}
	const order = ball.innings * 1000 + ball.delivery;
	if (model.balls.has(order))
		return;
	model.balls.set(order, ball);
	if (model.balls.size > COMMENTARY_MAX)
		model.balls.delete(Math.min(...model.balls.keys()));
	if (live && !model.paused)
		announce(ball);
}

/* For screen readers only what matters: every ball would be a flood. */
function announce(ball) {
	if (ball.wicket)
		$("announcer").textContent = "Wicket. " + ball.text + " " + ball.score;
	else if (ball.over_end)
		$("announcer").textContent = "End of over, " + ball.score;
}

function onRaw(text) {
	model.rawCount++;
	model.raw.unshift({
		t: new Date(),
		text: text.length > RAW_TEXT_MAX ? text.slice(0, RAW_TEXT_MAX) + " …" : text,
	});
	model.raw.length = Math.min(model.raw.length, RAW_MAX);
}

/* --- drawing ---------------------------------------------------------------- */

let drawDue = false;

function draw() {
	if (drawDue)
		return;
	drawDue = true;
	requestAnimationFrame(() => {
		drawDue = false;
		drawVitals();
		if (model.paused)
			return;
		drawScore();
		drawCommentary();
		drawCharts();
		drawRaw();
	});
}

function setText(id, text) {
	const node = $(id);
	if (node.textContent !== text)
		node.textContent = text;
}

function element(tag, className, text) {
	const node = document.createElement(tag);
	if (className)
		node.className = className;
	if (text !== undefined)
		node.textContent = text;
	return node;
}

const STATE_TEXT = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting" };

function drawVitals() {
	$("state").dataset.state = model.state;
	setText("state-text", STATE_TEXT[model.state]);
	setText("count", model.messages.toLocaleString("en"));
	setText("latency", latencyText(model.latencyMs));
	setText("banner", model.banner);
	$("banner").hidden = !model.banner;
}

function latencyText(ms) {
	if (ms === null)
		return "–";
	return ms < 1 ? "< 1 ms" : Math.round(ms).toLocaleString("en") + " ms";
}

function drawScore() {
	const score = model.score;
	$("score-waiting").hidden = Boolean(score);
	$("score-body").hidden = !score;
	if (!score)
		return;
	const innings = score.innings[score.innings.length - 1];
	const first = score.innings.length > 1 ? score.innings[0] : null;
	const batting = score.teams[innings.batting];
	const other = score.teams[1 - innings.batting];

	setText("score-title", score.title);
	setText("ground", score.ground + ", " + score.format);
	drawCrest("bat-crest", batting, innings.batting);
	setText("bat-name", batting.name);
	setText("runs", innings.runs + "/" + innings.wickets);
	setText("overs", innings.overs);
	drawCrest("other-crest", other, 1 - innings.batting);
	setText("other-name", other.name);
	setText("other-runs", first ? `${first.runs}/${first.wickets} (${first.overs})` : "To bat");
	setText("note", score.note);
	drawByOver(innings);
	drawThisOver(innings);
	drawFacts(innings);
}

function drawCrest(id, team, side) {
	setText(id, team.short);
	$(id).dataset.side = side;
}

function kindOf(badge) {
	const kinds = { 0: "dot", 4: "four", 6: "six", W: "wicket" };
	return kinds[badge] || (/[a-z]/.test(badge) ? "extra" : "runs");
}

const BADGE_WORDS = { 0: "dot ball", W: "wicket", wd: "wide", nb: "no ball", b: "bye", lb: "leg bye" };

function ballChip(tag, badge) {
	const chip = element(tag, "ball", badge === "0" ? "•" : badge);
	chip.dataset.kind = kindOf(badge);
	if (BADGE_WORDS[badge])
		chip.title = BADGE_WORDS[badge];
	return chip;
}

function drawThisOver(innings) {
	const list = $("this-over");
	const key = innings.overs + " " + innings.this_over.join(" ");
	if (list.dataset.key === key)
		return;
	list.dataset.key = key;
	list.replaceChildren(...innings.this_over.map((badge) => {
		const item = element("li");
		item.append(ballChip("span", badge));
		return item;
	}));
}

/* A bar for each over, the one under way in its own colour, a dot for each
 * wicket above it. */
function drawByOver(innings) {
	const chart = $("by-over");
	const height = chart.clientHeight;
	const slot = chart.clientWidth / innings.overs_max;
	const most = Math.max(16, ...innings.by_over.map(([runs]) => runs));
	const roomy = height - 20; /* above the bars: place for the dots */
	const parts = [];
	for (let i = 0; i < innings.overs_max; i++) {
		const [runs, wickets] = innings.by_over[i] || [0, 0];
		const tall = Math.max(2, (runs / most) * roomy);
		const state = i >= innings.by_over.length ? "" : i === innings.by_over.length - 1 ? "now" : "bowled";
		parts.push(svg("rect", { class: state, x: i * slot, y: height - tall, width: slot * 0.7, height: tall, rx: 1.5 }));
		for (let w = 0; w < wickets; w++)
			parts.push(svg("circle", { cx: i * slot + slot * 0.35, cy: height - tall - 7 - 8 * w, r: 3 }));
	}
	chart.replaceChildren(...parts);
	chart.setAttribute("aria-label", "Runs in each over: " +
		innings.by_over.map(([runs, wickets]) => runs + (wickets ? ` with ${wickets} out` : "")).join(", "));
}

function drawFacts(innings) {
	$("batters").replaceChildren(...innings.batters.map((b) => {
		const row = element("tr");
		const name = element("th", b.striker && model.score.phase === "live" ? "striker" : "", b.name);
		name.scope = "row";
		row.append(name);
		for (const n of [b.runs, b.balls, b.fours, b.sixes])
			row.append(element("td", "", n));
		return row;
	}));
	if (innings.batters.length < 2 && model.score.phase === "live")
		$("batters").append(newBatter());
	const bowler = innings.bowler;
	const last = innings.last_wicket;
	fact("bowler", bowler && bowler.name,
		bowler && `${bowler.wickets} for ${bowler.runs}, ${bowler.overs} overs`);
	fact("partnership", String(innings.partnership.runs), `off ${innings.partnership.balls} balls`);
	fact("last-wicket", last && last.batter,
		last && `${last.runs} (${last.balls}), ${last.how}, at ${last.at}`);
}

function newBatter() {
	const row = element("tr", "coming");
	const name = element("th", "", "New batter");
	name.scope = "row";
	row.append(name);
	return row;
}

function fact(id, text, detail) {
	const node = $(id);
	node.replaceChildren(text || "–");
	if (detail)
		node.append(element("small", "", detail));
}

/* Newest first. Only what is new is built; what is no longer kept goes. */
function drawCommentary() {
	const list = $("commentary");
	$("talk-waiting").hidden = model.balls.size > 0;
	for (const item of [...list.children]) {
		const ball = model.balls.get(Number(item.dataset.order));
		if (!ball || String(ball.play) !== item.dataset.play)
			item.remove();
	}
	const shown = new Set([...list.children].map((item) => Number(item.dataset.order)));
	const filling = shown.size === 0;
	for (const order of [...model.balls.keys()].sort((a, b) => a - b)) {
		if (shown.has(order))
			continue;
		const item = commentaryItem(model.balls.get(order), order);
		item.classList.toggle("fresh", !filling);
		const after = [...list.children].find((i) => Number(i.dataset.order) < order);
		list.insertBefore(item, after || null);
	}
}

function commentaryItem(ball, order) {
	const item = element("li");
	item.dataset.order = order;
	item.dataset.play = ball.play;
	item.dataset.kind = kindOf(ball.badge);
	const words = element("div");
	words.append(element("p", "what", ball.text),
		element("p", "who", `${ball.bowler} to ${ball.batter}`));
	item.append(element("span", "at", ball.over), ballChip("span", ball.badge), words);
	if (ball.over_end) {
		const end = element("p", "end");
		end.append(element("span", "", "End of over " + (Number(ball.over.split(".")[0]) + 1)),
			element("span", "", ball.score));
		item.append(end);
	}
	return item;
}

function drawRaw() {
	setText("watched-count", model.rawCount.toLocaleString("en") +
		(model.rawCount === 1 ? " message" : " messages"));
	$("raw-waiting").hidden = model.raw.length > 0;
	setText("raw-waiting", `Nothing on ${model.watched} yet. Run the line above and watch it arrive.`);
	const list = $("raw");
	const fresh = Math.min(model.rawCount - Number(list.dataset.count || 0), model.raw.length);
	if (fresh < 0 || model.rawCount === 0)
		list.replaceChildren();
	list.dataset.count = model.rawCount;
	for (const message of model.raw.slice(0, Math.max(fresh, 0)).reverse()) {
		const item = element("li", "fresh");
		item.append(element("time", "", message.t.toLocaleTimeString("en-GB")),
			element("code", "", message.text));
		list.prepend(item);
	}
	while (list.children.length > RAW_MAX)
		list.lastElementChild.remove();
}

/* --- charts ----------------------------------------------------------------- */

const SVG = "http://www.w3.org/2000/svg";
const PAD = { left: 0, right: 60, top: 8, bottom: 18 };

function svg(tag, attributes, text) {
	const node = document.createElementNS(SVG, tag);
	for (const [name, value] of Object.entries(attributes))
		node.setAttribute(name, value);
	if (text !== undefined)
		node.textContent = text;
	return node;
}

/* The reading under the pointer, as a time before now; null: the latest. */
const pointer = { "cpu-chart": null, "net-chart": null };

/* Draws lines over the last two minutes. `lines` is [{className, of, area}],
 * `of` taking the value out of a sample. Returns the sample that is read. */
function drawChart(id, samples, lines, top, tick) {
	const chart = $(id);
	const width = chart.clientWidth;
	const height = chart.clientHeight;
	const right = width - PAD.right;
	const bottom = height - PAD.bottom;
	const now = Date.now();
	const x = (t) => right - ((now - t) / CHART_SPAN_MS) * (right - PAD.left);
	const y = (v) => bottom - (Math.min(v, top) / top) * (bottom - PAD.top);
	const seen = samples.filter((s) => s.t >= now - CHART_SPAN_MS);
	const parts = [];

	for (const share of [0, 0.5, 1]) {
		const at = Math.round(y(top * share)) + 0.5;
		parts.push(svg("line", { class: "grid", x1: PAD.left, x2: right, y1: at, y2: at }),
			svg("text", { x: right + 8, y: at + 4 }, tick(top * share)));
	}
	parts.push(svg("text", { x: PAD.left, y: height - 3 }, "2 min ago"),
		svg("text", { x: right / 2, y: height - 3, "text-anchor": "middle" }, "1 min"),
		svg("text", { x: right, y: height - 3, "text-anchor": "end" }, "now"));
	for (const line of lines) {
		const points = seen.map((s) => ({ t: s.t, x: x(s.t), y: y(line.of(s) || 0) }));
		if (line.area)
			parts.push(svg("path", { class: "area", d: areaPath(points, bottom) }));
		parts.push(svg("path", { class: line.className, d: linePath(points) }));
	}
	const read = sampleAt(seen, pointer[id] === null ? null : x, pointer[id]);
	if (read && pointer[id] !== null)
		parts.push(svg("line", { class: "cursor", x1: x(read.t), x2: x(read.t), y1: PAD.top, y2: bottom }));
	chart.replaceChildren(...parts);
	return read;
}

/* Runs of points without a hole between them. */
function runs(points) {
	const out = [];
	points.forEach((p, i) => {
		if (i === 0 || p.t - points[i - 1].t > CHART_HOLE_MS)
			out.push([]);
		out[out.length - 1].push(p);
	});
	return out;
}

const step = (p) => p.x.toFixed(1) + " " + p.y.toFixed(1);

function linePath(points) {
	return runs(points).map((run) => "M" + run.map(step).join("L")).join("");
}

function areaPath(points, bottom) {
	return runs(points).map((run) => {
		const last = run[run.length - 1];
		return `M${run[0].x.toFixed(1)} ${bottom}L${run.map(step).join("L")}L${last.x.toFixed(1)} ${bottom}Z`;
	}).join("");
}

function sampleAt(samples, x, at) {
	if (!x)
		return samples[samples.length - 1];
	let best = null;
	for (const s of samples)
		if (!best || Math.abs(x(s.t) - at) < Math.abs(x(best.t) - at))
			best = s;
	return best;
}

const BYTE_UNITS = ["B/s", "kB/s", "MB/s", "GB/s"];

function bytesText(bytes) {
	let unit = 0;
	while (bytes >= 1000 && unit < BYTE_UNITS.length - 1) {
		bytes /= 1000;
		unit++;
	}
	return (bytes < 10 && unit > 0 ? bytes.toFixed(1) : Math.round(bytes)) + " " + BYTE_UNITS[unit];
}

/* The next 1, 2 or 5 times a power of ten: an axis people can read. */
function roundUp(value) {
	const power = Math.pow(10, Math.floor(Math.log10(Math.max(value, 1000))));
	return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}

function drawCharts() {
	const cores = Math.max(0, ...model.cpu.map((s) => s.cores.length));
	const cpuLines = Array.from({ length: cores }, (_, i) => ({ className: "core", of: (s) => s.cores[i] }));
	cpuLines.push({ className: "s1", of: (s) => s.total, area: true });
	const cpu = drawChart("cpu-chart", model.cpu, cpuLines, 100, (v) => v + " %");
	setText("cpu-now", cpu ? `${readAt(cpu)}${Math.round(cpu.total)} % of ${cpu.cores.length} cores` : "–");

	const most = Math.max(0, ...model.net.map((s) => Math.max(s.rx, s.tx, s.loopback)));
	const net = drawChart("net-chart", model.net, [
		{ className: "s3", of: (s) => s.loopback },
		{ className: "s2", of: (s) => s.tx },
		{ className: "s1", of: (s) => s.rx, area: true },
	], roundUp(most), bytesText);
	setText("net-loopback", net ? "loopback " + bytesText(net.loopback) : "loopback");
	setText("net-now", net ? `${readAt(net)}${bytesText(net.rx)} in, ${bytesText(net.tx)} out` : "–");
}

function readAt(sample) {
	if (pointer["cpu-chart"] === null && pointer["net-chart"] === null)
		return "";
	return Math.round((Date.now() - sample.t) / 1000) + " s ago: ";
}

/* --- what people do --------------------------------------------------------- */

/* The dispatcher's API stands on another port than this page: 7070 unless the
 * page's address says otherwise (?api=PORT). */
function apiAddress() {
	const port = new URLSearchParams(location.search).get("api");
	return location.hostname + ":" + (/^\d{1,5}$/.test(port || "") ? port : "7070");
}

function drawCurl() {
	const body = JSON.stringify({ channel: model.watched, data: "Hello from my terminal" });
	setText("curl", `curl -H 'Content-Type: application/json' \\\n-d '${body}' \\\n` +
		`http://${apiAddress()}/stentor.v1.PublisherService/Publish`);
}

function onWatch(event) {
	event.preventDefault();
	const name = $("channel").value.trim();
	const valid = CHANNEL_NAME.test(name);
	$("channel").setAttribute("aria-invalid", String(!valid));
	setText("channel-error", valid ? "" :
		"A channel is 1 to 128 letters, digits and _ . : ~ @ / -, without spaces.");
	if (!valid || name === model.watched)
		return;
	model.watched = name;
	model.raw = [];
	model.rawCount = 0;
	drawCurl();
	openStream();
	draw();
}

async function onCopy() {
	const text = $("curl").textContent;
	try {
		await navigator.clipboard.writeText(text);
	} catch { /* not a secure context: select it, so that Ctrl-C takes it */
		getSelection().selectAllChildren($("curl"));
		flash("Selected");
		return;
	}
	flash("Copied");
}

function flash(text) {
	setText("copy", text);
	setTimeout(() => setText("copy", "Copy"), 1600);
}

function onPause() {
	model.paused = !model.paused;
	$("pause").setAttribute("aria-pressed", String(model.paused));
	draw();
}

function followPointer(id) {
	const chart = $(id);
	chart.addEventListener("pointermove", (event) => {
		pointer[id] = event.clientX - chart.getBoundingClientRect().left;
		draw();
	});
	chart.addEventListener("pointerleave", () => {
		pointer[id] = null;
		draw();
	});
}

$("watch-form").addEventListener("submit", onWatch);
$("copy").addEventListener("click", onCopy);
$("pause").addEventListener("click", onPause);
followPointer("cpu-chart");
followPointer("net-chart");
addEventListener("resize", draw);
setInterval(draw, 1000); /* the charts' time goes on in silence, too */
drawCurl();
openStream();
draw();
