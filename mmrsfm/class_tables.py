# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Names of the classes of benchmarks, in the order of their numbers.

Datasets, converters and the writers of submissions share them; nothing is imported here. The orders
are those of the published fine-tunings, so that released weights keep their meaning.
"""

XVIEW = (
    'Fixed-wing Aircraft', 'Small Aircraft', 'Cargo Plane', 'Helicopter', 'Passenger Vehicle',
    'Small Car', 'Bus', 'Pickup Truck', 'Utility Truck', 'Truck', 'Cargo Truck', 'Truck w/Box',
    'Truck Tractor', 'Trailer', 'Truck w/Flatbed', 'Truck w/Liquid', 'Crane Truck',
    'Railway Vehicle', 'Passenger Car', 'Cargo Car', 'Flat Car', 'Tank car', 'Locomotive',
    'Maritime Vessel', 'Motorboat', 'Sailboat', 'Tugboat', 'Barge', 'Fishing Vessel', 'Ferry',
    'Yacht', 'Container Ship', 'Oil Tanker', 'Engineering Vehicle', 'Tower crane',
    'Container Crane', 'Reach Stacker', 'Straddle Carrier', 'Mobile Crane', 'Dump Truck',
    'Haul Truck', 'Scraper/Tractor', 'Front loader/Bulldozer', 'Excavator', 'Cement Mixer',
    'Ground Grader', 'Hut/Tent', 'Shed', 'Building', 'Aircraft Hangar', 'Damaged Building',
    'Facility', 'Construction Site', 'Vehicle Lot', 'Helipad', 'Storage Tank',
    'Shipping container lot', 'Shipping Container', 'Pylon', 'Tower',
)  # fmt: skip
# The publisher's type_id of each of them; other ids (75, 82) are in no class.
XVIEW_TYPE_IDS = (
    11, 12, 13, 15, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 32, 33, 34, 35, 36, 37, 38, 40,
    41, 42, 44, 45, 47, 49, 50, 51, 52, 53, 54, 55, 56, 57, 59, 60, 61, 62, 63, 64, 65, 66, 71, 72,
    73, 74, 76, 77, 79, 83, 84, 86, 89, 91, 93, 94,
)  # fmt: skip
# DIOR and DIOR-R, in small letters.
DIOR = (
    'airplane', 'airport', 'baseballfield', 'basketballcourt', 'bridge', 'chimney',
    'expressway-service-area', 'expressway-toll-station', 'dam', 'golffield', 'groundtrackfield',
    'harbor', 'overpass', 'ship', 'stadium', 'storagetank', 'tenniscourt', 'trainstation',
    'vehicle', 'windmill',
)  # fmt: skip
# FAIR1M-2.0.
FAIR1M = (
    'A220', 'A321', 'A330', 'A350', 'ARJ21', 'Baseball-Field', 'Basketball-Court', 'Boeing737',
    'Boeing747', 'Boeing777', 'Boeing787', 'Bridge', 'Bus', 'C919', 'Cargo-Truck',
    'Dry-Cargo-Ship', 'Dump-Truck', 'Engineering-Ship', 'Excavator', 'Fishing-Boat',
    'Football-Field', 'Intersection', 'Liquid-Cargo-Ship', 'Motorboat', 'other-airplane',
    'other-ship', 'other-vehicle', 'Passenger-Ship', 'Roundabout', 'Small-Car', 'Tennis-Court',
    'Tractor', 'Trailer', 'Truck-Tractor', 'Tugboat', 'Van', 'Warship',
)  # fmt: skip
DOTA_V1 = (
    'plane', 'baseball-diamond', 'bridge', 'ground-track-field', 'small-vehicle', 'large-vehicle',
    'ship', 'tennis-court', 'basketball-court', 'storage-tank', 'soccer-ball-field', 'roundabout',
    'harbor', 'swimming-pool', 'helicopter',
)  # fmt: skip
DOTA_V2 = (*DOTA_V1, 'container-crane', 'airport', 'helipad')

# SAMRS: SIOR and FAST keep the order of DIOR and FAIR1M, SOTA has one of its own.
SAMRS_SOTA = (
    'large-vehicle', 'swimming-pool', 'helicopter', 'bridge', 'plane', 'ship', 'soccer-ball-field',
    'basketball-court', 'ground-track-field', 'small-vehicle', 'baseball-diamond', 'tennis-court',
    'roundabout', 'storage-tank', 'harbor', 'container-crane', 'airport', 'helipad',
)  # fmt: skip
SAMRS = {'sota': SAMRS_SOTA, 'sior': DIOR, 'fast': FAIR1M}
# SARDet-100K, as its files list them.
SARDET_100K = ('ship', 'aircraft', 'car', 'tank', 'bridge', 'harbor')
