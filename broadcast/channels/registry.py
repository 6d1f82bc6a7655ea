"""The channels of this system. To add one, write a class with the methods of `protocol.Channel` and add it here: the
outbox, the ladder, the gauges and the page Channels then know it.
"""

from collections.abc import Mapping

from flask import Flask

from broadcast.base.app_parts import AppPart
from broadcast.channels.email import EMAIL, EmailChannel
from broadcast.channels.protocol import Channel
from broadcast.channels.push import PUSH, PushChannel
from broadcast.config.settings import Settings


def build_channels(app: Flask, settings: Settings) -> Mapping[str, Channel]:
    """Every channel by its name, in the order in which pages show them."""
    channels: list[Channel] = [PUSH.attach(app, PushChannel(settings)), EMAIL.attach(app, EmailChannel(app, settings))]
    return {channel.name: channel for channel in channels}


def get_labels() -> dict[str, str]:
    """What pages call the channels, by name."""
    return {channel.name: channel.label for channel in CHANNELS.current.values()}


CHANNELS = AppPart[Mapping[str, Channel]]("channels")
