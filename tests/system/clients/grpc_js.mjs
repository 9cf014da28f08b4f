// @grpc/grpc-js with proto-loader: node grpc_js.mjs PROTO_DIR TARGET CHANNEL
// Publishes unary, in a batch and on a stream; prints what came back as JSON.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [protoDir, target, channel] = process.argv.slice(2);
const definition = loader.loadSync(
	["stentor/v1/publisher.proto", "stentor/v1/cluster.proto",
	 "grpc/health/v1/health.proto"],
	{ includeDirs: [protoDir], longs: String, enums: String });
const root = grpc.loadPackageDefinition(definition);
const credentials = grpc.credentials.createInsecure();
const publisher = new root.stentor.v1.PublisherService(target, credentials);
const cluster = new root.stentor.v1.ClusterService(target, credentials);
const health = new root.grpc.health.v1.Health(target, credentials);

const call = (client, method, request) => new Promise((resolve, reject) =>
	client[method](request, { deadline: Date.now() + 10000 },
		(error, answer) => error ? reject(error) : resolve(answer)));

function stream(count) {
	return new Promise((resolve, reject) => {
		const codes = [];
		const s = publisher.PublishStream();
		s.on("data", (result) => codes.push(result.code ?? 0));
		s.on("error", reject);
		s.on("end", () => resolve(codes));
		for (let i = 0; i < count; i++)
			s.write({ channel, data: `stream ${i}` });
		s.end();
	});
}

const unary = await call(publisher, "Publish", { channel, data: "unary" });
const batch = await call(publisher, "PublishBatch", {
	messages: [{ channel, data: "batch 0" }, { channel: "", data: "x" }],
});
const codes = await stream(20);
const refused = await call(publisher, "Publish", { channel: "not valid" })
	.then(() => null, (e) => e.code);
const nodes = await call(cluster, "ListNodes", {});
const alive = await call(health, "Check", { service: "" });
console.log(JSON.stringify({
	messageId: unary.messageId,
	batch: batch.results.map((r) => r.code ?? 0),
	stream: codes,
	refused,
	nodes: nodes.nodes.map((n) => n.name),
	health: alive.status,
}));
for (const client of [publisher, cluster, health])
	client.close();
