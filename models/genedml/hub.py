"""What the hub of Hugging Face says against giving a file, as one error with its steps."""

from genedml.errors import GeneDMLError


def hub_error(error: Exception, what: str, page: str, last_step: str) -> GeneDMLError:
    """Why the hub did not give something, and the three steps to get it.

    Args:
        error: what the hub's library raised.
        what: was asked for, with its verb: "The weights of uni are".
        page: where its conditions are to be accepted.
        last_step: after that and a login.
    """
    return GeneDMLError(
        f"{what} not here: {hub_reason(error)}. Three steps fix it:\n"
        f"  1. accept the conditions at {page}\n"
        "  2. log in, with the account that accepted them: hf auth login (or set HF_TOKEN)\n"
        f"  3. {last_step}"
    )


def asks_for_leave(error: Exception) -> bool:
    """Whether the hub would give something to an account that has accepted its conditions or is logged in."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)


def hub_reason(error: Exception) -> str:
    """Why the hub did not give something, in a few words."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, GatedRepoError):
        return "it is gated, and " + (
            "there is no token here" if get_token() is None else "the account of the token here has not accepted that"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return f"the hub cannot be reached ({_cause(error)})"
    if isinstance(error, EntryNotFoundError):
        return f"the hub lacks a file ({_cause(error)})"
    if isinstance(error, HfHubHTTPError):
        unknown = error.response.status_code == 401
        return "the hub does not know the token here" if unknown else f"the hub refused ({_cause(error)})"
    return f"the connection broke off, or the disk cannot be written ({_cause(error)})"


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") if lines else type(error).__name__
