"""The words of pairing codes, and nothing else.

512 common English words of four to eight letters, so a word is worth 9 bits. No two begin with the same
four letters, and no two are one letter apart (changed, added or left out): a word may be shortened to its
first four letters, and one slip of the finger never makes another word of the list. In alphabetical order.

The list is the same on all devices: who changes it changes `pairing.PROTOCOL_VERSION` too.
"""

from __future__ import annotations

from typing import Final

WORDS: Final = tuple(
    """
acorn actor adult agent airport alarm album almond amber ankle antelope apple april apron arena arrow
artist aspen atlas attic autumn award bacon badge bagel baker ballet bamboo banana banjo barley barn
basket beard beaver bedroom bench bicycle bingo birthday blanket blossom boat bonfire bonus bottle boxer
bracket breeze brick bridge bronze broom brother brush bubble bucket buffalo bugle bundle burger butter
buzzer cabin cactus calendar camera canal canyon captain carbon cargo carpet castle cedar cement century
chalk champion chapter cheese cherry chess chicken chimney chorus cider cinema circus citizen clarinet
climb clock cloud clover coach cobra coconut coffee column comet compass concert copper coral corner
cotton cowboy coyote crab cradle crayon cricket crimson crown crystal cucumber curtain cushion daisy
dancer dawn decade delta denim dentist diamond dinner doctor dolphin donkey dozen dragon drawer drink drum
duck dune eagle earth easel echo eclipse editor elbow element elephant elevator emerald empire engine
envelope escape evening exhibit fabric falcon family farmer fashion father fence ferry festival fiddle
field figure filter flag flamingo flute foam folder forest fortune fossil freedom frog frost fruit future
galaxy gallery garden garlic giant ginger giraffe glacier glass globe golden gospel granite grape gravity
green grill guitar gull habit hammer hamster handle harvest hazel heart hedge helmet herald hickory
highway history hobby hockey holiday honey horizon hotel hunter husky icicle igloo image indigo insect
island item ivory jacket jaguar jelly jewel jigsaw journey judge jungle junior kayak kettle kingdom
kitchen kitten kiwi koala label ladder lagoon lamp lantern laptop laser laundry lava lawyer leader leather
legend lemon leopard letter library lighter lily linen lion lobster local lotus lunar lunch luxury machine
magnet mailbox mammal maple marble market mason meadow medal melody member mercury mineral minute mirror
mobile model moment moon morning mosaic mother mountain muffin museum music mustard napkin native nature
needle nephew nest network noble noodle north notebook novel nugget number nursery nutmeg oasis object
ocean october olive onion opera orange orbit orchard organ ostrich otter outfit oven owner oxygen oyster
package palace panda paper parade parrot pasta patrol peanut pebble pelican pencil pepper person piano
picnic pigeon pilot pioneer pirate planet plaza poet polar pony popcorn portrait potato powder prairie
pretzel prize pumpkin puppet purple puzzle pyramid quail queen question quilt rabbit radar radio raft
rainbow ranch raven razor recipe record redwood reptile rescue ribbon river robin rocket rodeo roof
rooster rose royal rubber ruby runner saddle safari sailor salad salmon satin scarf school scooter season
seed shadow sheriff shovel signal silver siren sister sketch slipper smile snake soccer spider spoon
square station stone student subway sugar summer sunset surfer swallow symbol system table talent tango
target teacher temple tennis thunder ticket tiger timber titan toast tomato topaz tornado tower tractor
travel triangle trumpet tulip tundra tunnel turkey turtle twenty umbrella uncle uniform universe upper
urban vacuum valley vanilla velvet vendor venture verse vessel video village violin visitor volcano voyage
waffle wagon walnut walrus warrior water wealth wedding weekend wheat whisper willow window winter wizard
wolf wonder wooden worker wreath yacht yard yellow youth zebra zenith zigzag zipper
""".split()  # noqa: SIM905 - 512 quoted words cannot be proofread
)
"""All words, lower case."""

SHORTEST_PREFIX: Final = 4
"""So many first letters are enough to name a word."""
