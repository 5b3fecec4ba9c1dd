import { NODE_SIDE_PLANTS } from "./node_side_plants.ts";
import { testPlants } from "./planted.ts";

testPlants(NODE_SIDE_PLANTS);
