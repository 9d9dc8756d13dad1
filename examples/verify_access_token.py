#!/usr/bin/env python3
"""What an agent does with an access token: it verifies the login without a call, by the public keys that GetJwks gave.

    grpcurl -plaintext 127.0.0.1:50051 kairos.identity.v1.SessionService/GetJwks > jwks.json
    python3 examples/verify_access_token.py jwks.json "$access_token"

Prints the claims, or says why the token is none and exits with 1. Needs PyJWT[crypto].
"""

import json
import pathlib
import sys

import jwt

# The service's settings session.issuer and session.audience.
ISSUER = "https://identity.kairos.localhost"
AUDIENCE = "kairos"

# RFC 9068, section 2.2, and the session. One that is missing is no claim to be trusted.
REQUIRED = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "client_id"]

# How far our clock may be from the service's.
LEEWAY_SECONDS = 5


def verify(token, jwks):
    """The claims of an access token that one of the keys signed and that is good now.

    Raises jwt.InvalidTokenError for any other text. A `kid` that is not among the keys may be newer than they are: ask GetJwks again.
    """
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("it is not an access token")
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(jwks).keys}
    if header.get("kid") not in keys:
        raise jwt.InvalidTokenError("its key is not known")
    # The algorithm is ours to say, not the token's (RFC 8725, section 3.1).
    return jwt.decode(
        token,
        keys[header["kid"]],
        algorithms=["EdDSA"],
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=LEEWAY_SECONDS,
        options={"require": REQUIRED},
    )


def main(jwks_file, token):
    jwks = json.loads(pathlib.Path(jwks_file).read_text())
    try:
        print(json.dumps(verify(token, jwks), indent=2))
    except jwt.InvalidTokenError as error:
        sys.exit(f"the token is refused: {error}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
