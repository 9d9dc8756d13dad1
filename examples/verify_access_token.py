#!/usr/bin/env python3
"""Verifies an access token without a call to the service, as an agent does, with the keys of GetJwks.

    grpcurl -plaintext 127.0.0.1:50051 kairos.identity.v1.SessionService/GetJwks > jwks.json
    python3 examples/verify_access_token.py jwks.json "$access_token"

Prints the claims. If the token is refused, prints the reason and exits with 1. Needs PyJWT[crypto].
"""

import json
import pathlib
import sys

import jwt

# The values of the service's settings session.issuer and session.audience.
ISSUER = "https://identity.kairos.localhost"
AUDIENCE = "kairos"

# The claims of RFC 9068, section 2.2, and the session. A token without one of them is invalid.
REQUIRED = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "client_id"]

# The tolerated difference between this machine's clock and the service's.
LEEWAY_SECONDS = 5


def verify(token, jwks):
    """Returns the claims of an access token that one of the keys signed and that is valid now.

    Raises jwt.InvalidTokenError for any other text. If the `kid` of the token is not among the keys, the key
    may be newer than they are: call GetJwks again.
    """
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("it is not an access token")
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(jwks).keys}
    if header.get("kid") not in keys:
        raise jwt.InvalidTokenError("its key is unknown")
    # The verifier sets the algorithm; the header of the token must not choose it (RFC 8725, section 3.1).
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
