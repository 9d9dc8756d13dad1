// A user's story with the client of Connect for Node.js, in one of its modes:
//
//   node connect_node.mjs DESCRIPTORS URL MODE
//
// Its requests must not be compressed; responses may be, but are not. It registers, verifies, is refused with a wrong password, logs in, refreshes, lists sessions, changes the
// password and deletes the account. Prints "OK" at the end.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

const [descriptors, baseUrl, mode] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const transports = {
  "connect-json-1.1": (more) => createConnectTransport({ baseUrl, httpVersion: "1.1", ...more }),
  "connect-json-2": (more) => createConnectTransport({ baseUrl, httpVersion: "2", ...more }),
  "connect-proto-1.1": (more) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true, ...more }),
  "grpc-web-1.1": (more) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1", ...more }),
  "grpc": (more) => createGrpcTransport({ baseUrl, ...more }),
};
const transport = transports[mode]({});
const over = (transport) => (name) =>
  createClient(registry.getService(`kairos.identity.v1.${name}`), transport);
const client = over(transport);
const [identity, session, account] = ["IdentityService", "SessionService", "AccountService"].map(client);

async function refused(call) {
  const error = await call.then(() => assert.fail("the call succeeded"), ConnectError.from);
  const info = error.details.find((detail) => detail.type === "google.rpc.ErrorInfo");
  assert.match(error.metadata.get("kairos-request-id"), /^[0-9a-f-]{36}$/);
  return [error.code, Buffer.from(info.value).toString().includes("identity.kairos")];
}

const email = `${mode}@example.com`;
const [password, newPassword] = ["plum-Voyage-84-kettle", "quartz-Lantern-57-meadow"];
const registration = { username: mode.replaceAll(".", ""), email, password, returnMailToken: true };
const { user, mailToken } = await identity.register(registration, { timeoutMs: 10_000 });
assert.equal((await identity.verifyEmail({ token: mailToken })).user.isVerified, true);
assert.deepEqual(await refused(identity.login({ email, password: "wrong-password" })), [Code.Unauthenticated, true]);
assert.deepEqual(await refused(identity.login({})), [Code.InvalidArgument, true]);
const compressing = transports[mode]({ sendCompression: compressionGzip, compressMinBytes: 0 });
await over(compressing)("IdentityService").login({ email, password }).then(
  () => assert.fail("a compressed request was accepted"),
  (error) => {
    assert.equal(ConnectError.from(error).code, Code.Unimplemented);
    assert.match(error.message, /identity/);
  },
);
const first = (await identity.login({ email, password })).tokens;
const tokens = (await session.refreshSession({ refreshToken: first.refreshToken })).tokens;
const acting = { headers: { authorization: `Bearer ${tokens.accessToken}` } };
const { sessions } = await session.listSessions({}, acting);
assert.deepEqual([sessions.length, sessions[0].isCurrent], [1, true]);
const resolved = await Promise.all(Array.from({ length: 20 }, () => identity.resolveToken({ authToken: user.authToken })));
assert.ok(resolved.every((answer) => answer.user.email === email && answer.user.createdAt.seconds > 0n));
await account.changePassword({ currentPassword: password, newPassword }, acting);
await account.deleteAccount({ currentPassword: newPassword }, acting);
assert.deepEqual(await refused(identity.resolveToken({ authToken: user.authToken })), [Code.NotFound, true]);
console.log("OK");
process.exit(0);
