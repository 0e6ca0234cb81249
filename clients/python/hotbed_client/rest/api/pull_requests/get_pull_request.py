from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.pull_request_view import PullRequestView
from ...types import Response


def _get_kwargs(
    owner: str,
    name: str,
    number: int,
) -> dict[str, Any]:

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/pull-requests/{owner}/{name}/{number}".format(
            owner=quote(str(owner), safe=""),
            name=quote(str(name), safe=""),
            number=quote(str(number), safe=""),
        ),
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Problem | PullRequestView:
    if response.status_code == 200:
        response_200 = PullRequestView.from_dict(response.json())

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
) -> Response[Problem | PullRequestView]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    owner: str,
    name: str,
    number: int,
    *,
    client: AuthenticatedClient,
) -> Response[Problem | PullRequestView]:
    """One pull request by its number: what the local forge's addresses lead to.

    Args:
        owner (str):
        name (str):
        number (int):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | PullRequestView]
    """

    kwargs = _get_kwargs(
        owner=owner,
        name=name,
        number=number,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    owner: str,
    name: str,
    number: int,
    *,
    client: AuthenticatedClient,
) -> Problem | PullRequestView | None:
    """One pull request by its number: what the local forge's addresses lead to.

    Args:
        owner (str):
        name (str):
        number (int):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | PullRequestView
    """

    return sync_detailed(
        owner=owner,
        name=name,
        number=number,
        client=client,
    ).parsed


async def asyncio_detailed(
    owner: str,
    name: str,
    number: int,
    *,
    client: AuthenticatedClient,
) -> Response[Problem | PullRequestView]:
    """One pull request by its number: what the local forge's addresses lead to.

    Args:
        owner (str):
        name (str):
        number (int):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | PullRequestView]
    """

    kwargs = _get_kwargs(
        owner=owner,
        name=name,
        number=number,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    owner: str,
    name: str,
    number: int,
    *,
    client: AuthenticatedClient,
) -> Problem | PullRequestView | None:
    """One pull request by its number: what the local forge's addresses lead to.

    Args:
        owner (str):
        name (str):
        number (int):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | PullRequestView
    """

    return (
        await asyncio_detailed(
            owner=owner,
            name=name,
            number=number,
            client=client,
        )
    ).parsed
