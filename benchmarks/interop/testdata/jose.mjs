// npm's jose: verifies a token by a key set or a secret, or signs one. Reads and writes JSON.
import { readFileSync } from "node:fs";
import { createRemoteJWKSet, errors, exportJWK, generateKeyPair, jwtVerify, SignJWT } from "jose";

const q = JSON.parse(readFileSync(0, "utf8"));
const secret = q.secret && new TextEncoder().encode(q.secret);
let out;
if (q.do === "verify") {
	try {
		const options = { algorithms: [q.alg], issuer: q.issuer, audience: q.audience, requiredClaims: ["exp", "iat", "sub"] };
		out = (await jwtVerify(q.token, secret || createRemoteJWKSet(new URL(q.jwks_uri)), options)).payload;
	} catch (e) {
		if (!(e instanceof errors.JOSEError)) throw e;
		out = { refused: e.message };
	}
} else {
	const pair = secret ? { privateKey: secret } : await generateKeyPair(q.alg, { extractable: true });
	const header = secret ? { alg: q.alg } : { alg: q.alg, kid: "k1", typ: "at+jwt" };
	const token = await new SignJWT({ roles: ["user", "ñandú"] }).setProtectedHeader(header).setSubject("theirs")
		.setIssuer(q.issuer).setAudience(q.audience).setIssuedAt().setExpirationTime("10m").sign(pair.privateKey);
	out = { token };
	if (!secret) out.jwks = { keys: [{ ...(await exportJWK(pair.publicKey)), kid: "k1", alg: q.alg, use: "sig" }] };
}
process.stdout.write(JSON.stringify(out));
