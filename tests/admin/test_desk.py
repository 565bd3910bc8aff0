"""What routes work with."""

from .administering import open_admin_kit


async def test_the_desk_has_the_proxys_own():
    async with open_admin_kit() as kit:
        desk = kit.desk
        assert (kit.store, kit.sessions) == (desk.store, desk.sessions)
