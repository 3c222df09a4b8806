"""Many live streams on one device: the scheduler, the API and the page.

    limits, access, images, metrics      what a client may do, and what is counted
    stream                               one client's stream: frames in, captions and answers out
    scheduler                            which streams run next, on which lanes of the device
    snapshots                            streams on disk, so that a restarted worker goes on with them
    realtime, chat, streams, page        the protocols and the page, over the scheduler
    app                                  all of it as one ASGI application

May import everything but training, evaluation and the command line. Needs the extra `serve`.
"""
