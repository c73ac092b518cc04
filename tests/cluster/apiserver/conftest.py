"""An API server without the rest of a cluster."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from apiharness import API, TOKEN, config_of, started

from kitlib.cluster.client import HTTPClient
from kitlib.cluster.store import Store


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[API]:
    """A running API server with an empty store."""
    store = Store(tmp_path / "state.db")
    server = await started(config_of(tmp_path), store)
    context = ssl.create_default_context(cafile=server.config.ca_file)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield API(server, session)
    await server.stop()
    store.close()


@pytest.fixture
async def http(api: API) -> AsyncIterator[HTTPClient]:
    """The components' HTTPS client of the same server."""
    client = HTTPClient(api.config.server, TOKEN, str(api.config.ca_file), "test-component/1")
    yield client
    await client.close()
