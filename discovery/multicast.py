"""The multicast sockets: one zeroconf instance, and which interfaces it uses.

python-zeroconf does not watch interfaces. Its `async_update_interfaces` compares by address, so that an
interface that was removed and made again with the same address keeps a socket whose group membership died
with the old one, and hears nothing. Therefore whatever changed is released first and taken up again after:
`release`, then `use`.

For use from one event loop. Nothing of zeroconf's own errors leaves this module but as OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from zeroconf import (  # type: ignore[attr-defined]  # the resolver is public, but not in its __all__
    AddressResolver,
    Error,
    IPVersion,
)
from zeroconf.asyncio import AsyncZeroconf

from discovery.addresses import is_connectable
from discovery.interfaces import Interface, multicast_choice

_LOCAL_LOOKUP_MILLISECONDS = 3000  # for the answer to a `.local` name: three questions, RFC 6762 section 5.2


class Multicast:
    """An open zeroconf instance on exactly the interfaces it was told to use."""

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        """Open the sockets; needs a running event loop; raises OSError if port 5353 cannot be used at all."""
        self._in_use = {interface.name: interface for interface in interfaces}
        choice = multicast_choice(interfaces)
        try:
            self.zeroconf = _open(choice)
        except (Error, RuntimeError) as error:  # an interface went away in between
            raise OSError(f"zeroconf cannot use the network interfaces: {error}") from error

    @property
    def addresses_in_use(self) -> int:
        """How many interface addresses have a socket."""
        return len(self.zeroconf.zeroconf.engine.senders)

    @property
    def is_settled(self) -> bool:
        """Whether every interface address that should have a socket has one."""
        return self.addresses_in_use == len(multicast_choice(tuple(self._in_use.values())))

    async def release(self, wanted: Sequence[Interface], *, all_of_them: bool = False) -> None:
        """Close the sockets of every interface that is no longer wanted just as it is; or of all."""
        keep = {} if all_of_them else {one.name: one for one in wanted if self._in_use.get(one.name) == one}
        if keep != self._in_use:
            self._in_use = keep
            await self._update()

    async def use(self, wanted: Sequence[Interface]) -> None:
        """Have sockets on these interfaces and no others; new ones announce what is registered."""
        self._in_use = {interface.name: interface for interface in wanted}
        await self._update()

    async def _update(self) -> None:
        choice = multicast_choice(tuple(self._in_use.values()))
        try:
            await self.zeroconf.async_update_interfaces(choice)
        except (Error, RuntimeError) as error:
            raise OSError(f"zeroconf cannot use the network interfaces: {error}") from error

    async def resolve_local(self, host: str) -> tuple[str, ...]:
        """The addresses of a `.local` name by multicast; none if nobody answers."""
        try:
            resolver = AddressResolver(f"{host}.")
            await resolver.async_request(self.zeroconf.zeroconf, _LOCAL_LOOKUP_MILLISECONDS)
        except Error as error:
            raise OSError(f"zeroconf cannot ask: {error}") from error
        return tuple(address for address in resolver.parsed_scoped_addresses() if is_connectable(address))

    async def close(self) -> None:
        """Say goodbye for what is announced and close every socket."""
        try:
            await self.zeroconf.async_close()
        except Error as error:
            raise OSError(f"zeroconf cannot close: {error}") from error


def _open(choice: list[str | int]) -> AsyncZeroconf:
    """A zeroconf instance for both address families, or for IPv4 where the system knows no other."""
    try:
        return AsyncZeroconf(interfaces=choice, ip_version=IPVersion.All)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return AsyncZeroconf(interfaces=choice, ip_version=IPVersion.V4Only)
