"""What the views of this process work with, as Flask's `current_app` is: proxies to the application's resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.resources import Resources

if TYPE_CHECKING:
    from app.data import Database
    from app.mesh import Mesh
    from app.mesh.cache import Cache
    from app.mesh.coordination import Coordination

EXTENSION = "mesh.resources"


def _resources() -> Resources:
    return cast(Resources, current_app.extensions[EXTENSION])


resources = cast("Resources", LocalProxy(_resources))
database = cast("Database", LocalProxy(lambda: _resources().database))
mesh = cast("Mesh", LocalProxy(lambda: _resources().mesh))
cache = cast("Cache", LocalProxy(lambda: _resources().cache))
coordination = cast("Coordination", LocalProxy(lambda: _resources().coordination))
