from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.build_view import BuildView
from ...models.problem import Problem
from ...models.start_build import StartBuild
from ...types import UNSET, Response, Unset


def _get_kwargs(
    owner: str,
    name: str,
    *,
    body: StartBuild | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(idempotency_key, Unset):
        headers["Idempotency-Key"] = idempotency_key

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/repos/{owner}/{name}/builds".format(
            owner=quote(str(owner), safe=""),
            name=quote(str(name), safe=""),
        ),
    }

    if not isinstance(body, Unset):
        _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> BuildView | Problem:
    if response.status_code == 202:
        response_202 = BuildView.from_dict(response.json())

        return response_202

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
) -> Response[BuildView | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    owner: str,
    name: str,
    *,
    client: AuthenticatedClient,
    body: StartBuild | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> Response[BuildView | Problem]:
    """Build an image now. One build of a repo is under way at a time and one may wait: what waits is
    superseded by a newer request.

    Args:
        owner (str):
        name (str):
        idempotency_key (str | Unset):
        body (StartBuild | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BuildView | Problem]
    """

    kwargs = _get_kwargs(
        owner=owner,
        name=name,
        body=body,
        idempotency_key=idempotency_key,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    owner: str,
    name: str,
    *,
    client: AuthenticatedClient,
    body: StartBuild | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> BuildView | Problem | None:
    """Build an image now. One build of a repo is under way at a time and one may wait: what waits is
    superseded by a newer request.

    Args:
        owner (str):
        name (str):
        idempotency_key (str | Unset):
        body (StartBuild | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BuildView | Problem
    """

    return sync_detailed(
        owner=owner,
        name=name,
        client=client,
        body=body,
        idempotency_key=idempotency_key,
    ).parsed


async def asyncio_detailed(
    owner: str,
    name: str,
    *,
    client: AuthenticatedClient,
    body: StartBuild | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> Response[BuildView | Problem]:
    """Build an image now. One build of a repo is under way at a time and one may wait: what waits is
    superseded by a newer request.

    Args:
        owner (str):
        name (str):
        idempotency_key (str | Unset):
        body (StartBuild | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BuildView | Problem]
    """

    kwargs = _get_kwargs(
        owner=owner,
        name=name,
        body=body,
        idempotency_key=idempotency_key,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    owner: str,
    name: str,
    *,
    client: AuthenticatedClient,
    body: StartBuild | Unset = UNSET,
    idempotency_key: str | Unset = UNSET,
) -> BuildView | Problem | None:
    """Build an image now. One build of a repo is under way at a time and one may wait: what waits is
    superseded by a newer request.

    Args:
        owner (str):
        name (str):
        idempotency_key (str | Unset):
        body (StartBuild | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BuildView | Problem
    """

    return (
        await asyncio_detailed(
            owner=owner,
            name=name,
            client=client,
            body=body,
            idempotency_key=idempotency_key,
        )
    ).parsed
