/**
 * Verifies an access token without a call to the service, as an agent does, with the public keys that the
 * service publishes over HTTP.
 *
 *     npm install jose typescript @types/node
 *     npx tsc --module nodenext --target es2022 --strict --types node verify_access_token.mts
 *     node verify_access_token.mjs http://127.0.0.1:50080/.well-known/jwks.json "$access_token"
 *
 * Prints the claims. If the token is refused, prints the reason and exits with 1.
 */

import process from "node:process";
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload } from "jose";

// The values of the service's settings session.issuer and session.audience.
const ISSUER = "https://identity.kairos.localhost";
const AUDIENCE = "kairos";

// The claims of RFC 9068, section 2.2, and the session. A token without one of them is invalid.
const REQUIRED = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "client_id"];

// The tolerated difference between this machine's clock and the service's.
const LEEWAY_SECONDS = 5;

/** The claims of an access token beside the registered ones. */
interface AccessClaims extends JWTPayload {
  /** The id of the session. */
  sid: string;
  /** The service that logged the user in. */
  client_id: string;
}

/**
 * Returns a function that verifies access tokens. Reuse it, because it caches the keys: it fetches them again
 * after 5 minutes, and at once if a token names an unknown key, but at most every 30 seconds.
 */
function verifier(jwks: URL): (token: string) => Promise<AccessClaims> {
  const keys = createRemoteJWKSet(jwks, { cacheMaxAge: 300_000 });
  return async (token) => {
    const { payload } = await jwtVerify<AccessClaims>(token, keys, {
      // The verifier sets both; the header of the token must not choose them (RFC 8725, section 3.1).
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
