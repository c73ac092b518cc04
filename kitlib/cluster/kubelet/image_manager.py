"""Has a container's image, or tells why not, with back-off between pulls.

Stands for the kubelet's image manager. Every stand-in is present on every node, so a pull only has to find it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kitlib.cluster import images
from kitlib.cluster.objects import Object

Events = list[tuple[str, str, str]]
"""Type, reason and message of each Event."""

LONGEST_PULL_BACKOFF = 300.0
_RETRY_SECONDS = 10.0


@dataclass
class Backoff:
    """Delays that double, as client-go's `flowcontrol.Backoff` computes them."""

    initial: float
    longest: float
    delay: float = 0.0
    updated: float = 0.0

    def left(self, since: float, now: float) -> float:
        """Return the seconds to wait after a failure at `since`; 0 when it is time, which counts as a try."""
        if not self.delay or since - self.updated > 2 * self.longest:
            self.delay, self.updated = self.initial, now
            return 0.0
        if now - since < self.delay:
            return since + self.delay - now
        self.delay, self.updated = min(2 * self.delay, self.longest), now
        return 0.0


@dataclass
class NotPulled(Exception):  # noqa: N818
    """The image cannot be had now.

    Attributes:
        reason: The container's waiting reason.
        message: The container's waiting message.
        retry: Seconds until it is worth another look.
        events: What to tell people.
    """

    reason: str
    message: str
    retry: float
    events: Events = field(default_factory=list)


class ImagePuller:
    """Pulls the image of one container.

    Args:
        initial_backoff: First delay after a failed pull.
    """

    def __init__(self, initial_backoff: float) -> None:
        self._backoff = Backoff(initial_backoff, LONGEST_PULL_BACKOFF)
        self._failed_at = 0.0

    def reset(self) -> None:
        """Forget failures: the container names another image."""
        self._backoff.delay = self._failed_at = 0.0

    def pull(self, spec: Object, now: float) -> tuple[images.Image, Events]:
        """Return the image of a container's spec, and what to tell people.

        Raises:
            NotPulled: It cannot be had now.
        """
        reference, policy = spec.get("image", ""), spec.get("imagePullPolicy")
        try:
            image = images.resolve(reference)
        except images.InvalidImageName as error:
            message = f'Failed to apply default image tag "{reference}": {error}'
            raise _refused("InvalidImageName", message, "InspectFailed") from error
        except images.ImageNotFound as error:
            if policy == "Never":
                message = f'Container image "{reference}" is not present with pull policy of Never'
                raise _refused("ErrImageNeverPull", message, "ErrImageNeverPull") from error
            raise self._failed(reference, f"rpc error: code = NotFound desc = {error}", now) from error
        self.reset()
        return image, _pulled(reference, image, policy == "Always")

    def _failed(self, reference: str, message: str, now: float) -> NotPulled:
        delay = self._backoff.left(self._failed_at, now)
        if delay:
            events = [
                ("Normal", "BackOff", f'Back-off pulling image "{reference}"'),
                ("Warning", "Failed", "Error: ImagePullBackOff"),
            ]
            words = f'Back-off pulling image "{reference}": ErrImagePull: {message}'
            return NotPulled("ImagePullBackOff", words, delay, events)
        self._failed_at = now
        events = [
            ("Normal", "Pulling", f'Pulling image "{reference}"'),
            ("Warning", "Failed", f'Failed to pull image "{reference}": {message}'),
            ("Warning", "Failed", "Error: ErrImagePull"),
        ]
        return NotPulled("ErrImagePull", message, 1.0, events)


def _refused(reason: str, message: str, event: str) -> NotPulled:
    events = [("Warning", event, message), ("Warning", "Failed", f"Error: {reason}")]
    return NotPulled(reason, message, _RETRY_SECONDS, events)


def _pulled(reference: str, image: images.Image, always: bool) -> Events:
    if not always:
        words = f'Container image "{reference}" already present on machine and can be accessed by the pod'
        return [("Normal", "Pulled", words)]
    words = f'Successfully pulled image "{reference}" in 1ms (1ms including waiting). Image size: {image.size} bytes.'
    return [("Normal", "Pulling", f'Pulling image "{reference}"'), ("Normal", "Pulled", words)]
