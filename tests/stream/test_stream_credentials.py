"""What lets a client in: by the address, and by the client's own options."""

import asyncio
import base64
import hashlib
import importlib
import json
import shutil
import ssl
import subprocess
import time

import pytest

from memvid_async import InvalidValueError, StoreConfig, StoreFailedError, open_store
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, NatsServer, find_server

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)
if not DEEP:
    pytest.skip("servers of their own start where CI is set", allow_module_level=True)
nkeys = importlib.import_module("nkeys")


class Key:
    """An Ed25519 key of NATS's kind, from a fixed seed."""

    def __init__(self, prefix, number):
        self.seed = nkeys.encode_seed(bytes([number]) * 32, prefix).decode()
        self.pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self.pair.public_key.decode()

    def claim(self, subject, about):
        """A token (JWT) in which this key says something about another one."""

        def packed(value):
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        claims = {"iss": self.public, "sub": subject.public, "iat": int(time.time())}
        claims |= {"name": "test", "nats": {"version": 2, **about}}
        claims["jti"] = base64.b32encode(hashlib.sha256(repr(claims).encode()).digest()).decode()
        signed = f"{packed({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{packed(claims)}"
        return f"{signed}.{packed(self.pair.sign(signed.encode()))}"


USER, STRANGER = Key(nkeys.PREFIX_BYTE_USER, 1), Key(nkeys.PREFIX_BYTE_USER, 2)


def write_credentials(path, token, key):
    """A file as `nsc generate creds` writes it."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )
    return str(path)


def with_operator(folder):
    """A server's configuration with an operator, and the credentials of a user and a stranger."""
    operator = Key(nkeys.PREFIX_BYTE_OPERATOR, 3)
    account, system = Key(nkeys.PREFIX_BYTE_ACCOUNT, 4), Key(nkeys.PREFIX_BYTE_ACCOUNT, 5)
    names = ("subs", "conn", "leaf", "imports", "exports", "data", "payload")
    limits = dict.fromkeys((*names, "mem_storage", "disk_storage", "streams", "consumer"), -1)
    about = {"type": "account", "limits": {**limits, "wildcards": True}}
    bare = {"type": "account", "limits": {**dict.fromkeys(names, -1), "wildcards": True}}
    token = operator.claim(operator, {"type": "operator", "system_account": system.public})
    config = (
        f"operator: {token}\nsystem_account: {system.public}\nresolver: MEMORY\n"
        f"resolver_preload: {{\n{account.public}: {operator.claim(account, about)}\n"
        f"{system.public}: {operator.claim(system, bare)}\n}}\n"
    )
    about = {"type": "user", "subs": -1, "data": -1, "payload": -1}
    let_in = write_credentials(folder / "user.creds", account.claim(USER, about), USER)
    # Signed by itself, and not by the account.
    kept_out = write_credentials(folder / "other.creds", STRANGER.claim(STRANGER, about), STRANGER)
    return config, let_in, kept_out


def cases(folder):
    """Configurations; for each one the user part and the options, or the end of the address, that
    let in, and those that do not."""
    seed, strange = folder / "seed", folder / "strange"
    seed.write_text(USER.seed)
    strange.write_text(STRANGER.seed)
    users = f"authorization {{ users: [ {{user: u, password: p}}, {{nkey: {USER.public}}} ] }}\n"
    yield (
        users,
        [
            ("u:p@", {}),
            ("", {"user": "u", "password": "p"}),
            ("", {"nkeys_seed": str(seed)}),
            ("", {"nkeys_seed_str": USER.seed}),
            ("", f"?seed={seed}"),
        ],
        [
            ("u:q@", {}),
            ("", {"user": "u", "password": "q"}),
            ("", {"nkeys_seed": str(strange)}),
            ("", {}),
        ],
    )
    token = "authorization { token: t0ken }\n"
    yield token, [("t0ken@", {}), ("", {"token": "t0ken"})], [("other@", {}), ("", {"token": "x"})]
    config, let_in, kept_out = with_operator(folder)
    yield (
        config,
        [("", {"user_credentials": let_in}), ("", f"?credentials={let_in}")],
        [("", {"user_credentials": kept_out}), ("", f"?credentials={kept_out}"), ("", {})],
    )


def reach(server, user, options):
    """The address of a store, and the configuration, for some credentials."""
    end, given = (options, {}) if isinstance(options, str) else ("", options)
    address = f"nats://{user}127.0.0.1:{server.port}/a{end}"
    return address, StoreConfig(nats_options=given)


async def test_each_kind_of_credentials_lets_in_and_keeps_out(tmp_path):
    for setting, right, wrong in cases(tmp_path):
        server = NatsServer(config=setting)
        try:
            for number, (user, options) in enumerate(right, 1):
                address, config = reach(server, user, options)
                async with open_store(address, config=config) as store:
                    assert await store.put(f"{number}") == number
                    assert "t0ken" not in f"{store!r} {store.path}"
            for user, options in wrong:
                address, config = reach(server, user, options)
                # Well below the 30 s for which servers that do not answer are asked again.
                begun = time.monotonic()
                with pytest.raises(StoreFailedError, match="Authorization"):
                    await open_store(address, config=config)
                assert time.monotonic() - begun < 15
        finally:
            server.close()


async def test_credentials_that_cannot_be_read_are_named(tmp_path):
    missing, broken = tmp_path / "missing", tmp_path / "broken"
    broken.write_text("nothing of the kind")
    # A server that lets everybody in does not ask for them.
    server = NatsServer(config=f"authorization {{ users: [ {{nkey: {USER.public}}} ] }}\n")
    try:
        for options in (
            {"user_credentials": str(missing)},
            {"user_credentials": str(broken)},
            {"nkeys_seed": str(missing)},
            {"nkeys_seed": str(broken)},
            {"nkeys_seed_str": "SU-NO"},
            {"no_such_option": 1},
        ):
            begun = time.monotonic()
            with pytest.raises(InvalidValueError, match="nats_options"):
                await open_store(server.address("a"), config=StoreConfig(nats_options=options))
            assert time.monotonic() - begun < 15, options
        for file in ("credentials", "seed", "ca"):
            for path in (missing, broken):
                with pytest.raises(InvalidValueError, match=r"nats_options|ca="):
                    await open_store(server.address(f"a?{file}={path}"))
    finally:
        server.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_certificate_is_checked(tmp_path, nats_server):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    made += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    server = NatsServer(config=f'tls: {{ cert_file: "{certificate}", key_file: "{key}" }}\n')
    trusting = {"tls": ssl.create_default_context(cafile=certificate)}
    try:
        # A server that insists on TLS says so, whatever the address says.
        for number, scheme in enumerate(("tls", "nats"), 1):
            address = f"{scheme}://127.0.0.1:{server.port}/a"
            async with open_store(address, config=StoreConfig(nats_options=trusting)) as store:
                assert await store.put("one") == number
            async with open_store(f"{address}?ca={certificate}", read_only=True) as store:
                assert store.statistics().frame_count == number
            for options in ({}, {"tls": ssl.create_default_context()}):
                strict = StoreConfig(server_timeout=0.5, nats_options=options)
                with pytest.raises(StoreFailedError, match=r"(?i)certificate|tls|ssl"):
                    await open_store(address, config=strict)
    finally:
        server.close()
    # An address that insists on TLS is not content without.
    plain = nats_server.address().replace("nats:", "tls:")
    config = StoreConfig(server_timeout=0.5, nats_options=trusting)
    with pytest.raises(StoreFailedError, match=r"(?i)tls|ssl"):
        await open_store(plain, config=config)
