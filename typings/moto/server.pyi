from collections.abc import Callable, Iterable
from typing import Any

create_backend_app: Callable[..., Any]

class DomainDispatcherApplication:
    def __init__(self, create_app: Callable[..., Any]) -> None: ...
    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]: ...
