/**
 * What an agent does with an access token: it verifies the login without a call, by the public keys that the service has over HTTP.
 *
 *     npm install jose typescript @types/node
 *     npx tsc --module nodenext --target es2022 --strict --types node verify_access_token.mts
 *     node verify_access_token.mjs http://127.0.0.1:50080/.well-known/jwks.json "$access_token"
 *
 * Prints the claims, or says why the token is none and exits with 1.
 */

import process from "node:process";
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload } from "jose";

// The service's settings session.issuer and session.audience.
const ISSUER = "https://identity.kairos.localhost";
const AUDIENCE = "kairos";

// RFC 9068, section 2.2, and the session. One that is missing is no claim to be trusted.
const REQUIRED = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "client_id"];

// How far our clock may be from the service's.
const LEEWAY_SECONDS = 5;

/** What an access token says beside the registered claims. */
interface AccessClaims extends JWTPayload {
  /** The session. */
  sid: string;
  /** The service that logged the person in. */
  client_id: string;
}

/**
 * Gives a function that verifies access tokens. Keep it: it keeps the keys for five minutes, and asks for them again at once when a token
 * names a key that it does not know, though not more often than every half minute.
 */
function verifier(jwks: URL): (token: string) => Promise<AccessClaims> {
  const keys = createRemoteJWKSet(jwks, { cacheMaxAge: 300_000 });
  return async (token) => {
    const { payload } = await jwtVerify<AccessClaims>(token, keys, {
      // Both are ours to say, not the token's (RFC 8725, section 3.1).
      algorithms: ["EdDSA"],
      typ: "at+jwt",
      issuer: ISSUER,
      audience: AUDIENCE,
      clockTolerance: LEEWAY_SECONDS,
      requiredClaims: REQUIRED,
    });
    return payload;
  };
}

const [jwks, token] = process.argv.slice(2);
if (jwks === undefined || token === undefined) {
  console.error("usage: node verify_access_token.mjs JWKS_URL ACCESS_TOKEN");
  process.exit(2);
}
try {
  console.log(JSON.stringify(await verifier(new URL(jwks))(token), null, 2));
} catch (error) {
  if (!(error instanceof errors.JOSEError)) throw error;
  console.error(`the token is refused: ${error.message}`);
  process.exit(1);
}
