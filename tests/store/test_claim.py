def test_smoke(engine):
    from tests.support import walk
    with engine.begin() as c:
        ep = walk.add_endpoint(c)
        walk.emit(c, 3)
        w = walk.add_worker(c)
        print(walk.claim(c, w), walk.lane(c, ep.id))
def test_smoke2(engine):
    pass
