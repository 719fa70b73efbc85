"""stub for a first look"""
def draw_lookalikes(rng, volume):
    return None
