// Looks at Kubernetes manifests as an API server and a reviewer would, without
// either: types and required fields (the kinds' OpenAPI schemas), unknown
// fields (the kinds' TypeScript interfaces), the restricted Pod Security
// Standard and common practices.
//
//   node validate.mjs TOOLS FILE...
//
// TOOLS has the node_modules of package.json. Prints one line for each thing
// that is wrong; ends 1 if there was any.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [tools, ...files] = process.argv.slice(2);
const modules = path.resolve(tools, "node_modules");
const load = (file) => import(pathToFileURL(path.join(modules, file)));

const PACKAGES = [
  ["kubernetes-models", ".js"],
  ["@kubernetes-models/keda", ".mjs"],
  ["@kubernetes-models/prometheus-operator", ".js"],
  ["@kubernetes-models/gateway-api", ".mjs"],
];
// Beyond the baseline, which is always on. Left out: cpu-limit (throttling is
// latency), no-secret-mounted-as-env (a password option is one) and
// no-exposed-service (browsers are to come in).
const RESTRICTED = [
  "volume-types", "privilege-escalation", "running-as-non-root",
  "running-as-non-root-user", "seccomp-strict", "capabilities-strict",
].map((rule) => [`pod-security-standards/${rule}`, "err"]);
const PRACTICES = [
  "cpu-request", "memory-request", "memory-limit", "no-secret-env",
  "no-automount-service-account-token", "privileged-ports", "image-tagged",
  "mount-propagation", "no-ssh-exposed",
].map((rule) => [`practices/${rule}`, "err"]);

const { default: yaml } = await load("js-yaml/dist/js-yaml.mjs");
const problems = [];
const say = (doc, text) =>
  problems.push(`${doc.file}: ${doc.kind} ${doc.metadata?.name}: ${text}`);

function readAll() {
  const docs = [];
  for (const file of files)
    for (const content of yaml.loadAll(fs.readFileSync(file, "utf8")))
      if (content) {
        Object.defineProperty(content, "file", { value: path.basename(file) });
        docs.push(content);
      }
  return docs;
}

// Where the model of a kind is; null for a kind that nobody knows.
function find(doc) {
  for (const [name, suffix] of PACKAGES) {
    const file = `${name}/${doc.apiVersion}/${doc.kind}`;
    if (fs.existsSync(path.join(modules, file + suffix)))
      return { module: file, file: file + suffix };
  }
  return null;
}

async function checkTypes(docs) {
  for (const doc of docs) {
    const model = find(doc);
    if (model === null) {
      say(doc, `no such kind: ${doc.apiVersion}`);
      continue;
    }
    const { [doc.kind]: Kind } = await load(model.file);
    try {
      new Kind(doc).validate();
    } catch (error) {
      say(doc, error.message);
    }
  }
}

// An object literal may not have more than its interface: TypeScript says what.
async function checkFields(docs) {
  const { default: ts } = await load("typescript/lib/typescript.js");
  const source = path.join(path.resolve(tools), "manifests.ts");
  const known = docs.filter(find);
  const lines = [];
  const starts = known.map((doc, i) => {
    const start = lines.length;
    lines.push(
      `import type { I${doc.kind} as T${i} } from "${find(doc).module}";`,
      ...`export const o${i}: T${i} = ${JSON.stringify(doc, null, 1)};`
        .split("\n"));
    return start;
  });
  const text = lines.join("\n");
  const options = {
    noEmit: true, strict: true, skipLibCheck: true,
    module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022,
    moduleResolution: ts.ModuleResolutionKind.NodeNext, types: [],
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.fileExists = (name) => name === source || fileExists.call(host, name);
  host.readFile = (name) =>
    name === source ? text : readFile.call(host, name);
  host.getSourceFile = (name, ...rest) =>
    name === source ? ts.createSourceFile(name, text, ...rest)
      : getSourceFile.call(host, name, ...rest);
  const program = ts.createProgram([source], options, host);
  for (const d of ts.getPreEmitDiagnostics(program)) {
    const what = ts.flattenDiagnosticMessageText(d.messageText, " ");
    if (d.file?.fileName !== source) {
      problems.push(`typescript: ${what}`);
      continue;
    }
    const { line } = d.file.getLineAndCharacterOfPosition(d.start);
    say(known[starts.findLastIndex((start) => start <= line)],
      `${lines[line].trim()}: ${what}`);
  }
}

async function checkPractices(docs) {
  const { createDefaultMonokleValidator } =
    await load("@monokle/validation/lib/node.js");
  const validator = createDefaultMonokleValidator();
  const resources = docs.map((doc, i) => ({
    id: String(i), fileId: doc.file, filePath: doc.file, fileOffset: 0,
    name: doc.metadata?.name ?? "", apiVersion: doc.apiVersion,
    kind: doc.kind, namespace: doc.metadata?.namespace, content: doc,
    text: yaml.dump(doc),
  }));
  await validator.preload({
    plugins: { "pod-security-standards": true, practices: true },
    rules: Object.fromEntries([...RESTRICTED, ...PRACTICES]),
  });
  const { runs } = await validator.validate({ resources });
  for (const { results } of runs)
    for (const result of results) {
      const where = result.locations.find((l) => l.logicalLocations)
        ?.logicalLocations[0].fullyQualifiedName ?? "";
      problems.push(`${where}: ${result.ruleId}: ${result.message.text}`);
    }
}

const docs = readAll();
if (docs.length === 0)
  problems.push(`nothing in ${files}`);
await checkTypes(docs);
await checkFields(docs);
await checkPractices(docs);
console.log([...new Set(problems)].join("\n"));
process.exit(problems.length ? 1 : 0);
