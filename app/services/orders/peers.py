"""Users, as the mesh reaches them. The inventory is told by events."""

from __future__ import annotations

from app.errors import Unavailable
from app.mesh import Mesh

RETRY_AFTER_SECONDS = 1.0


class MeshUsers:
    """The users service."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def exists(self, user_id: int) -> bool:
        """Raises Unavailable; whoever is away comes back, so it says when to ask again, also if nobody else has."""
        try:
            reply = await self._mesh.get("users", f"/users/{user_id}")
            return reply.expect(200, 404).status == 200
        except Unavailable as error:
            if error.retry_after is None:
                error.retry_after = RETRY_AFTER_SECONDS
            raise
