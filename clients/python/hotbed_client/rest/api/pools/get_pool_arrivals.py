import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.arrivals import Arrivals
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    owner: str,
    name: str,
    *,
    from_: datetime.datetime | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    json_from_: str | Unset = UNSET
    if not isinstance(from_, Unset):
        json_from_ = from_.isoformat()
    params["from"] = json_from_

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/pools/{owner}/{name}/arrivals".format(
            owner=quote(str(owner), safe=""),
            name=quote(str(name), safe=""),
        ),
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Arrivals | Problem:
    if response.status_code == 200:
        response_200 = Arrivals.from_dict(response.json())

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
) -> Response[Arrivals | Problem]:
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
    from_: datetime.datetime | Unset = UNSET,
) -> Response[Arrivals | Problem]:
    """The claims of a repo by the minute, and how long its members took: what `hotbed pool replay` runs a
    policy against.

    Args:
        owner (str):
        name (str):
        from_ (datetime.datetime | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Arrivals | Problem]
    """

    kwargs = _get_kwargs(
        owner=owner,
        name=name,
        from_=from_,
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
    from_: datetime.datetime | Unset = UNSET,
) -> Arrivals | Problem | None:
    """The claims of a repo by the minute, and how long its members took: what `hotbed pool replay` runs a
    policy against.

    Args:
        owner (str):
        name (str):
        from_ (datetime.datetime | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Arrivals | Problem
    """

    return sync_detailed(
        owner=owner,
        name=name,
        client=client,
        from_=from_,
    ).parsed


async def asyncio_detailed(
    owner: str,
    name: str,
    *,
    client: AuthenticatedClient,
    from_: datetime.datetime | Unset = UNSET,
) -> Response[Arrivals | Problem]:
    """The claims of a repo by the minute, and how long its members took: what `hotbed pool replay` runs a
    policy against.

    Args:
        owner (str):
        name (str):
        from_ (datetime.datetime | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Arrivals | Problem]
    """

    kwargs = _get_kwargs(
        owner=owner,
        name=name,
        from_=from_,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    owner: str,
    name: str,
    *,
    client: AuthenticatedClient,
    from_: datetime.datetime | Unset = UNSET,
) -> Arrivals | Problem | None:
    """The claims of a repo by the minute, and how long its members took: what `hotbed pool replay` runs a
    policy against.

    Args:
        owner (str):
        name (str):
        from_ (datetime.datetime | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Arrivals | Problem
    """

    return (
        await asyncio_detailed(
            owner=owner,
            name=name,
            client=client,
            from_=from_,
        )
    ).parsed
