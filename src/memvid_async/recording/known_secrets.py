"""A scrubber for the shapes that keys, tokens, passwords and the numbers of cards commonly have."""

from __future__ import annotations

import re

REMOVED = "[removed]"

# A token begins where no other one goes on. Every part is bounded or stops at a space, so that
# looking for it takes time in proportion to the text.
_TOKENS = (
    r"sk-[\w-]{16,}",  # OpenAI, Anthropic (sk-ant-), OpenRouter and others
    r"(?:sk|rk|pk)_(?:live|test)_\w{10,}|whsec_\w{20,}",  # Stripe
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{16}",  # AWS
    r"gh[pousr]_\w{20,}|github_pat_\w{20,}",  # GitHub
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas|imt)-[\w-]{16,}",  # GitLab
    r"xox[abeoprs]-[\w-]{10,}|xapp-[\w-]{10,}",  # Slack
    r"AIza[\w-]{35}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{20,}",  # Google
    r"hf_\w{20,}|gsk_\w{20,}|xai-\w{20,}|r8_\w{20,}|pplx-\w{20,}|npm_\w{20,}|pypi-[\w-]{16,}",
    r"SG\.[\w-]{16,}\.[\w-]{16,}|dop_v1_\w{40,}|dckr_pat_[\w-]{20,}",
    r"eyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*",  # a JSON Web Token (RFC 7519)
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_TOKENS)})")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# A part that stays, and the secret after it.
_AFTER = (
    re.compile(r"(\b(?:bearer|basic)\s{1,4})[A-Za-z0-9._~+/-]{12,}={0,2}", re.IGNORECASE),
    re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,256}:)[^\s/]{1,256}(?=@)", re.IGNORECASE),
    re.compile(r"(https://hooks\.slack\.com/services/)[\w/]{10,}"),
    re.compile(
        r"((?:api[_-]?key|secret[_-]?(?:access[_-]?)?key|client[_-]?secret|password|passwd|account"
        r"[_-]?key|(?:access|auth|refresh|session|security)[_-]?token)"
        r"""\\?["']?\s{0,4}[:=]\s{0,4}\\?["']?)[^\s"',;&\\]{6,4096}""",
        re.IGNORECASE,
    ),
)
_CARD = re.compile(r"(?<![\d.])[2-6](?:[ -]?\d){12,18}(?![\d.]?\d)")


def scrub_secrets(_kind: str, _field: str, value: str) -> str:
    """Return a text without secrets: ``StoreConfig(scrub=scrub_secrets)``.

    It knows the keys and tokens of OpenAI, Anthropic, AWS, GitHub, GitLab, Slack, Google, Stripe
    and others by how they begin, JSON Web Tokens, ``Bearer`` and ``Basic`` credentials, private
    keys, the passwords in URLs, what follows a name such as ``api_key=`` or ``"password":``, and
    the numbers of cards (Luhn's formula, ISO/IEC 7812-1). Each becomes ``[removed]``. A secret of
    any other shape stays.
    """
    text = _PRIVATE_KEY.sub(REMOVED, value) if "PRIVATE KEY" in value else value
    for pattern in _AFTER:
        text = pattern.sub(rf"\g<1>{REMOVED}", text)
    return _CARD.sub(_without_card, _TOKEN.sub(REMOVED, text))


def _without_card(found: re.Match[str]) -> str:
    digits = [int(char) for char in found[0] if char.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return found[0] if (sum(digits[-1::-2]) + sum(doubled)) % 10 else REMOVED
