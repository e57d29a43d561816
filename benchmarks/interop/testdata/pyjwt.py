"""PyJWT: verifies a token by a key set or a secret, or signs one. Reads and writes JSON."""
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

q = json.load(sys.stdin)
if q["do"] == "verify":
    key = q.get("secret") or jwt.PyJWKClient(q["jwks_uri"]).get_signing_key_from_jwt(q["token"]).key
    try:
        out = jwt.decode(q["token"], key, algorithms=[q["alg"]], audience=q["audience"], issuer=q["issuer"],
                         options={"require": ["exp", "iat", "sub"]})
    except jwt.PyJWTError as e:
        out = {"refused": str(e)}
else:
    new = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    }.get(q["alg"], lambda: rsa.generate_private_key(65537, 2048))
    key = q.get("secret") or new()
    now = int(time.time())
    claims = {"iss": q["issuer"], "aud": q["audience"], "sub": "theirs", "iat": now, "exp": now + 600, "roles": ["user", "ñandú"]}
    out = {"token": jwt.encode(claims, key, algorithm=q["alg"], headers={"kid": "k1"} if "secret" not in q else None)}
    if "secret" not in q:
        out["pem"] = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
json.dump(out, sys.stdout)
