// The story of a user with the clients of Node.js, each in turn:
//
//     node story.mjs CLIENT...
//
// The names of the clients are the keys of CLIENTS. Environment variables: KAIROS_URL, KAIROS_CALLER_TOKEN,
// KAIROS_MAIL_FOLDER, KAIROS_PROTO (the folder of the .proto files), KAIROS_DESCRIPTORS (the same, compiled)
// and KAIROS_USERS (how the usernames begin). Prints one line of JSON for each client: its name, the steps
// that succeeded, and the secrets that it sent or received.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const { KAIROS_URL: baseUrl, KAIROS_CALLER_TOKEN: callerToken, KAIROS_USERS: users } = process.env;
const { KAIROS_MAIL_FOLDER: mailFolder, KAIROS_PROTO: proto, KAIROS_DESCRIPTORS: descriptors } = process.env;
const SERVICES = ["IdentityService", "SessionService", "AccountService"];
const [PASSWORD, NEW_PASSWORD] = ["plum-Voyage-84-kettle", "quartz-Lantern-57-meadow"];

// What makes a client compress its requests, which the service refuses.
const COMPRESSING = {
  "connect-node": { sendCompression: node.compressionGzip, compressMinBytes: 0 },
  "grpc-js": { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip },
};

// A client is a function of a service, a method, a message and headers. It returns the message of the
// response, or throws a Refusal.
class Refusal extends Error {
  constructor(code, reason, requestId) {
    super(`${code} ${reason}`);
    assert.match(requestId, /^[0-9a-f-]{36}$/);
  }
}

function connectClient(transport) {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
  const client = (name) => [name, createClient(registry.getService(`kairos.identity.v1.${name}`), transport)];
  const clients = Object.fromEntries(SERVICES.map(client));
  return async (service, method, message, headers) => {
    try {
      return await clients[service][method](message, { headers, timeoutMs: 10_000 });
    } catch (error) {
      const refused = ConnectError.from(error);
      const info = refused.details.find((detail) => detail.type === "google.rpc.ErrorInfo");
      if (!info) throw error;
      throw new Refusal(Code[refused.code], reasonIn(info.value), refused.metadata.get("kairos-request-id"));
    }
  };
}

function grpcClient(options) {
  const files = readdirSync(join(proto, "kairos/identity/v1")).map((name) => `kairos/identity/v1/${name}`);
  const definition = protoLoader.loadSync(files, { includeDirs: [proto], longs: Number, defaults: true });
  const api = grpc.loadPackageDefinition(definition).kairos.identity.v1;
  const { host, protocol } = new URL(baseUrl);
  const credentials = protocol === "https:" ? grpc.credentials.createSsl() : grpc.credentials.createInsecure();
  const clients = Object.fromEntries(SERVICES.map((name) => [name, new api[name](host, credentials, options)]));
  return (service, method, message, headers) => {
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    const options = { deadline: Date.now() + 10_000 };
    const { promise, resolve, reject } = promiseWithResolvers();
    clients[service][method](message, metadata, options, (error, answer) => {
      if (!error) return resolve(answer);
      const [details] = error.metadata.get("grpc-status-details-bin");
      if (!details) return reject(error);
      const code = Code[error.code];
      reject(new Refusal(code, reasonIn(details), error.metadata.get("kairos-request-id")[0]));
    });
    return promise;
  };
}

// Promise.withResolvers exists from Node.js 22 on.
function promiseWithResolvers() {
  let functions;
  const promise = new Promise((resolve, reject) => (functions = { resolve, reject }));
  return { promise, ...functions };
}

// The reason is the only text in capital letters of an encoded google.rpc.ErrorInfo.
function reasonIn(bytes) {
  const text = Buffer.from(bytes).toString("latin1");
  assert.ok(text.includes("identity.kairos"), text);
  return text.match(/[A-Z_]{5,}/)[0];
}

const CLIENTS = {
  "grpc-js": grpcClient,
  "connect-node-json-1.1": (options) =>
    connectClient(node.createConnectTransport({ baseUrl, httpVersion: "1.1", ...options })),
  "connect-node-json-2": (options) =>
    connectClient(node.createConnectTransport({ baseUrl, httpVersion: "2", ...options })),
  "connect-node-proto-1.1": (options) =>
    connectClient(node.createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true, ...options })),
  "connect-node-grpc": (options) => connectClient(node.createGrpcTransport({ baseUrl, ...options })),
  "connect-node-grpc-web": (options) =>
    connectClient(node.createGrpcWebTransport({ baseUrl, httpVersion: "1.1", ...options })),
  "connect-web": () => connectClient(web.createConnectTransport({ baseUrl })),
  "connect-web-grpc-web": () => connectClient(web.createGrpcWebTransport({ baseUrl })),
};

// Waits for the mail to a user, and returns the token in its link.
async function mailedToken(email) {
  for (const until = Date.now() + 10_000; Date.now() < until; await sleep(20)) {
    for (const file of readdirSync(mailFolder).filter((name) => name.endsWith(".eml"))) {
      const mail = readFileSync(join(mailFolder, file), "utf8");
      const text = mail.replace(/=\r?\n/g, "").replaceAll("=3D", "=");
      const link = mail.includes(`To: ${email}`) && text.match(/\/verify\?token=([\w-]{43})/);
      if (link) return link[1];
    }
  }
  assert.fail(`no mail to ${email} arrived`);
}

// Asserts that compressed requests are refused, if this client can send them.
async function assertCompressionRefused(name, caller) {
  const [, options] = Object.entries(COMPRESSING).find(([client]) => name.startsWith(client)) ?? [];
  if (!options) return;
  const call = CLIENTS[name](options)("IdentityService", "login", { email: "a@example.com", password: PASSWORD }, caller);
  await assert.rejects(call, (error) => error.code === Code.Unimplemented && /identity/.test(error.message));
}

async function story(name, call, clientIp) {
  const caller = { "kairos-caller-token": callerToken, "kairos-client-ip": clientIp };
  const username = users + name.replaceAll(/\W/g, "");
  const email = `${username}@example.com`;
  const identity = (method, message, headers = caller) => call("IdentityService", method, message, headers);
  const refused = (answer, expected) => assert.rejects(answer, { message: expected });
  const steps = [];
  const step = (done) => steps.push(done);

  const { user } = await identity("register", { username, email, password: PASSWORD });
  assert.equal(user.isVerified, false);
  step("register");

  const login = (password) => identity("login", { email, password });
  await refused(identity("login", { email, password: PASSWORD }, {}), "Unauthenticated CALLER_UNKNOWN");
  await refused(login(""), "InvalidArgument INVALID_FIELDS");
  await refused(login("wrong-password"), "Unauthenticated INVALID_CREDENTIALS");
  await refused(login(PASSWORD), "PermissionDenied EMAIL_NOT_VERIFIED");
  const link = await mailedToken(email);
  assert.equal((await identity("verifyEmail", { token: link })).user.isVerified, true);
  step("verify");

  await assertCompressionRefused(name, caller);
  const first = (await login(PASSWORD)).tokens;
  step("log in");

  const { tokens } = await call("SessionService", "refreshSession", { refreshToken: first.refreshToken }, caller);
  step("refresh");

  const acting = { ...caller, authorization: `Bearer ${tokens.accessToken}` };
  await refused(call("SessionService", "listSessions", {}, caller), "Unauthenticated INVALID_ACCESS_TOKEN");
  await call("AccountService", "changePassword", { currentPassword: PASSWORD, newPassword: NEW_PASSWORD }, acting);
  step("change the password");

  const { sessions } = await call("SessionService", "listSessions", {}, acting);
  const [session, ...others] = sessions;
  assert.deepEqual([session.isCurrent, session.caller, session.clientIp, others.length], [true, "bff", clientIp, 0]);
  step("list the sessions");

  const resolve = () => identity("resolveToken", { authToken: user.authToken });
  for (const answer of await Promise.all(Array.from({ length: 10 }, resolve))) {
    assert.ok(answer.user.email === email && Number(answer.user.createdAt.seconds) > 0);
  }
  await call("AccountService", "deleteAccount", { currentPassword: NEW_PASSWORD }, acting);
  await refused(resolve(), "NotFound USER_NOT_FOUND");
  step("delete the account");

  const received = [first, tokens].flatMap((each) => [each.accessToken, each.refreshToken]);
  return { client: name, steps, secrets: [callerToken, PASSWORD, NEW_PASSWORD, link, ...received] };
}

for (const [index, name] of process.argv.slice(2).entries()) {
  try {
    console.log(JSON.stringify(await story(name, CLIENTS[name](), `198.51.100.${index + 1}`)));
  } catch (error) {
    console.error(name, error);
    process.exit(1);
  }
}
process.exit(0);
