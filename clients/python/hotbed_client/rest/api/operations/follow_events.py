from http import HTTPStatus
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.happening_frame import HappeningFrame
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    after: int | Unset = UNSET,
    repo: str | Unset = UNSET,
    session: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    tail: bool | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["after"] = after

    params["repo"] = repo

    params["session"] = session

    params["kind"] = kind

    params["tail"] = tail

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/events",
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> HappeningFrame | Problem:
    if response.status_code == 200:
        response_200 = HappeningFrame.from_dict(response.content)

        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())

        return response_403

    if response.status_code == 404:
        response_404 = Problem.from_dict(response.json())

        return response_404

    if response.status_code == 422:
        response_422 = Problem.from_dict(response.json())

        return response_422

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())

        return response_429

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    response_default = Problem.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[HappeningFrame | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient,
    after: int | Unset = UNSET,
    repo: str | Unset = UNSET,
    session: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    tail: bool | Unset = UNSET,
) -> Response[HappeningFrame | Problem]:
    """What happens, as it happens: sessions, builds, images, pools, warm-ups, pull requests, failures. The
    `data` of each is a `HappeningView`. The last 4096 are remembered, in memory; the event `lost`, a
    `LostView`, says that what was between `after` and `next` is no longer there, after a restart, too.
    A key that is limited to repos hears of those.

    Args:
        after (int | Unset):
        repo (str | Unset):
        session (str | Unset):
        kind (str | Unset):
        tail (bool | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[HappeningFrame | Problem]
    """

    kwargs = _get_kwargs(
        after=after,
        repo=repo,
        session=session,
        kind=kind,
        tail=tail,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient,
    after: int | Unset = UNSET,
    repo: str | Unset = UNSET,
    session: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    tail: bool | Unset = UNSET,
) -> HappeningFrame | Problem | None:
    """What happens, as it happens: sessions, builds, images, pools, warm-ups, pull requests, failures. The
    `data` of each is a `HappeningView`. The last 4096 are remembered, in memory; the event `lost`, a
    `LostView`, says that what was between `after` and `next` is no longer there, after a restart, too.
    A key that is limited to repos hears of those.

    Args:
        after (int | Unset):
        repo (str | Unset):
        session (str | Unset):
        kind (str | Unset):
        tail (bool | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        HappeningFrame | Problem
    """

    return sync_detailed(
        client=client,
        after=after,
        repo=repo,
        session=session,
        kind=kind,
        tail=tail,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    after: int | Unset = UNSET,
    repo: str | Unset = UNSET,
    session: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    tail: bool | Unset = UNSET,
) -> Response[HappeningFrame | Problem]:
    """What happens, as it happens: sessions, builds, images, pools, warm-ups, pull requests, failures. The
    `data` of each is a `HappeningView`. The last 4096 are remembered, in memory; the event `lost`, a
    `LostView`, says that what was between `after` and `next` is no longer there, after a restart, too.
    A key that is limited to repos hears of those.

    Args:
        after (int | Unset):
        repo (str | Unset):
        session (str | Unset):
        kind (str | Unset):
        tail (bool | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[HappeningFrame | Problem]
    """

    kwargs = _get_kwargs(
        after=after,
        repo=repo,
        session=session,
        kind=kind,
        tail=tail,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    after: int | Unset = UNSET,
    repo: str | Unset = UNSET,
    session: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    tail: bool | Unset = UNSET,
) -> HappeningFrame | Problem | None:
    """What happens, as it happens: sessions, builds, images, pools, warm-ups, pull requests, failures. The
    `data` of each is a `HappeningView`. The last 4096 are remembered, in memory; the event `lost`, a
    `LostView`, says that what was between `after` and `next` is no longer there, after a restart, too.
    A key that is limited to repos hears of those.

    Args:
        after (int | Unset):
        repo (str | Unset):
        session (str | Unset):
        kind (str | Unset):
        tail (bool | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        HappeningFrame | Problem
    """

    return (
        await asyncio_detailed(
            client=client,
            after=after,
            repo=repo,
            session=session,
            kind=kind,
            tail=tail,
        )
    ).parsed
