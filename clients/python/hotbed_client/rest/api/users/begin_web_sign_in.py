from http import HTTPStatus
from typing import Any

import httpx

from ...client import AuthenticatedClient, Client
from ...models.begin_web_sign_in import BeginWebSignIn
from ...models.problem import Problem
from ...models.web_sign_in_view import WebSignInView
from ...types import Response


def _get_kwargs(
    *,
    body: BeginWebSignIn,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/sign-ins/web",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Problem | WebSignInView:
    if response.status_code == 201:
        response_201 = WebSignInView.from_dict(response.json())

        return response_201

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
) -> Response[Problem | WebSignInView]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient,
    body: BeginWebSignIn,
) -> Response[Problem | WebSignInView]:
    """Begin a sign-in by the web: send the browser to `url`. Keep `state` with that browser; a state from
    another one is an attack. With `repo` the token reaches that repository alone.

    Args:
        body (BeginWebSignIn):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | WebSignInView]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient,
    body: BeginWebSignIn,
) -> Problem | WebSignInView | None:
    """Begin a sign-in by the web: send the browser to `url`. Keep `state` with that browser; a state from
    another one is an attack. With `repo` the token reaches that repository alone.

    Args:
        body (BeginWebSignIn):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | WebSignInView
    """

    return sync_detailed(
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    body: BeginWebSignIn,
) -> Response[Problem | WebSignInView]:
    """Begin a sign-in by the web: send the browser to `url`. Keep `state` with that browser; a state from
    another one is an attack. With `repo` the token reaches that repository alone.

    Args:
        body (BeginWebSignIn):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | WebSignInView]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient,
    body: BeginWebSignIn,
) -> Problem | WebSignInView | None:
    """Begin a sign-in by the web: send the browser to `url`. Keep `state` with that browser; a state from
    another one is an attack. With `repo` the token reaches that repository alone.

    Args:
        body (BeginWebSignIn):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | WebSignInView
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
        )
    ).parsed
