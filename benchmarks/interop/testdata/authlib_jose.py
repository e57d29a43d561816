"""Authlib: verifies a token by a key set or a secret, or signs one. Reads and writes JSON."""
import json
import sys
import time
import urllib.request

from authlib.jose import JsonWebKey, JsonWebToken
from authlib.jose.errors import JoseError

q = json.load(sys.stdin)
jwt = JsonWebToken([q["alg"]])
if q["do"] == "verify":
    key = q.get("secret")
    if not key:
        with urllib.request.urlopen(q["jwks_uri"]) as r:
            key = JsonWebKey.import_key_set(json.load(r))
    try:
        out = jwt.decode(q["token"], key, claims_options={
            "iss": {"essential": True, "value": q["issuer"]},
            "aud": {"essential": True, "value": q["audience"]},
            "exp": {"essential": True},
        })
        out.validate()
    except JoseError as e:
        out = {"refused": str(e)}
else:
    now = int(time.time())
    claims = {"iss": q["issuer"], "aud": q["audience"], "sub": "theirs", "iat": now, "exp": now + 600, "roles": ["user", "ñandú"]}
    if "secret" in q:
        out = {"token": jwt.encode({"alg": q["alg"]}, claims, q["secret"]).decode()}
    else:
        kind, size = {"EdDSA": ("OKP", "Ed25519"), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"),
                      "ES512": ("EC", "P-521")}.get(q["alg"], ("RSA", 2048))
        key = JsonWebKey.generate_key(kind, size, {"kid": "k1", "alg": q["alg"], "use": "sig"}, is_private=True)
        out = {
            "token": jwt.encode({"alg": q["alg"], "kid": "k1"}, claims, key).decode(),
            "jwks": {"keys": [{**key.as_dict(is_private=False), "alg": q["alg"]}]},
        }
json.dump(out, sys.stdout)
