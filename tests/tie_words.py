"""Ties in short."""

import pyparam


def names(source, **options):
    return [tie.names for tie in pyparam.ties(source, **options)]


def kinds(source, **options):
    return [tie.kind for tie in pyparam.ties(source, **options)]
