import { ARRAY_PLANTS } from "./array_plants.ts";
import { testPlants } from "./planted.ts";

testPlants(ARRAY_PLANTS);
