"""Fixtures for the tests of the web package."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from werkzeug.routing import Rule

from broadcast.config.settings import Settings
from broadcast.factory import create_app
from tests.conftest import add_test_users
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, serve_oidc_provider


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Rule]:
    """Every route of the application except static files."""
    folder = tmp_path_factory.mktemp("routes")
    settings = Settings(app_env="test", data_dir=folder, secret_key="k" * 40, log_level="error")
    return [rule for rule in create_app(settings).url_map.iter_rules() if rule.endpoint != "static"]


@pytest.fixture
def openid() -> Iterator[OidcProvider]:
    with serve_oidc_provider() as running_provider:
        yield running_provider


@pytest.fixture
def organised(make_app, openid: OidcProvider) -> Callable[..., Flask]:
    """Make an application whose users sign in at the provider; takes changed settings. The test users exist."""

    def make(**changes) -> Flask:
        oidc_settings = {"oidc_issuer": openid.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
        app = make_app(**oidc_settings | changes)
        with app.app_context():
            add_test_users()
        return app

    return make
