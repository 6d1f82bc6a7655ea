"""E-mail addresses: what is stored, and what is refused."""

import pytest

from broadcast.domain.email_address import normalize_address


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        (" Anna@Example.COM ", "Anna@example.com"),
        ("anna@bücher.example", "anna@xn--bcher-kva.example"),
        ("a.b+c=d@mail.example.org", "a.b+c=d@mail.example.org"),
    ],
)
def test_domain_is_stored_as_mail_servers_know_it(typed, stored):
    assert normalize_address(typed) == stored


@pytest.mark.parametrize(
    "typed",
    [
        "", "anna", "anna@", "@example.com", "anna@example", "a b@example.com", "anna@example.com\r\nBcc: x@example.com",
        "anna@exa mple.com", '"anna"@example.com', "a..b@example.com", "anna@example..com", "anna@-a.com",
        "x" * 65 + "@example.com",
        "anna@" + "x" * 64 + ".com", "anna@example.com,eve@example.com", "<anna@example.com>",
        "anna@[127.0.0.1]", "anna@\udcff.com",
    ],
)  # fmt: skip
def test_other_texts_are_refused(typed):
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalize_address(typed)


def test_letters_that_many_servers_refuse_are_named():
    with pytest.raises(ValueError, match="before the @"):
        normalize_address("ännä@example.com")
