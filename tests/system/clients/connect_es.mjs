// @connectrpc/connect: node connect_es.mjs DESCRIPTORS BASE_URL CHANNEL KIND
// KIND: json, proto (Connect over HTTP/1.1), connect2 (over HTTP/2), grpc.
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport,
	Http2SessionManager } from "@connectrpc/connect-node";

const [descriptors, baseUrl, channel, kind] = process.argv.slice(2);
const registry = createFileRegistry(
	fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const sessions = new Http2SessionManager(baseUrl);
const h2 = { baseUrl, sessionManager: sessions };
const transport = {
	json: () => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
	proto: () => createConnectTransport({ baseUrl, httpVersion: "1.1",
		useBinaryFormat: true }),
	connect2: () => createConnectTransport({ ...h2, httpVersion: "2" }),
	grpc: () => createGrpcTransport(h2),
}[kind]();
const client = (name) => createClient(registry.getService(name), transport);
const publisher = client("stentor.v1.PublisherService");
const channels = client("stentor.v1.ChannelService");

const unary = await publisher.publish({ channel, data: "unary" });
const batch = await publisher.publishBatch({
	messages: [{ channel, data: "batch 0" }, { channel: "", data: "x" }],
});
let codes = null;
if (kind === "grpc") {
	codes = [];
	async function* requests() {
		for (let i = 0; i < 20; i++)
			yield { channel, data: `stream ${i}` };
	}
	for await (const result of publisher.publishStream(requests()))
		codes.push(result.code);
}
const refused = await publisher.publish({ channel: "not valid" })
	.then(() => null, (e) => Code[ConnectError.from(e).code]);
const info = await channels.getChannel({ channel });
console.log(JSON.stringify({
	messageId: unary.messageId,
	batch: batch.results.map((r) => r.code),
	stream: codes,
	refused,
	subscribers: Number(info.subscribers),
}));
sessions.abort();
