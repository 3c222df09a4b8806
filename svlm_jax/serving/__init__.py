"""Many live streams on one device: the scheduler, the API and the page.

    limits, access, images, metrics      what a client may do, and what is counted
    stream                               one client's stream: frames in, captions and answers out
    executor                             the lanes of the device and their programs
    scheduler, replies, answers          which streams run next; words of captions and answers as they are decoded
    hub                                  streams by id: admission, sources, snapshots
    snapshots                            streams on disk, so that a restarted worker goes on with them
    realtime, chat, streams, page        the protocols and the page, over the scheduler
    app                                  all of it as one ASGI application

May import everything but training, evaluation and the command line. Needs the extra `serve`.
"""
